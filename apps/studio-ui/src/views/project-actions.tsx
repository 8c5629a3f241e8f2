import { useRef } from "react";
import { useTranslation } from "react-i18next";
import { client, getToken, request } from "../state/session.ts";
import { useAction } from "../state/use-async.ts";
import { ErrorNote } from "./parts.tsx";
import type { Project } from "./project-list.tsx";

interface ProjectActionsProps {
  project: Project;
  onChanged: () => void;
  onDeleted: () => void;
}

async function archive(path: string, init: RequestInit): Promise<Response> {
  return request(path, {
    ...init,
    headers: { ...init.headers, authorization: `Bearer ${await getToken()}` },
  });
}

/** Import, export and deletion of a project. */
export function ProjectActions({ project, onChanged, onDeleted }: ProjectActionsProps) {
  const { t } = useTranslation();
  const input = useRef<HTMLInputElement>(null);
  const importZip = useAction(async (file: File) => {
    await archive(`/projects/${project.id}/import`, {
      method: "POST",
      headers: { "content-type": "application/zip" },
      body: file,
    });
    onChanged();
  });
  const exportZip = useAction(async () => {
    const blob = await (await archive(`/projects/${project.id}/export.zip`, {})).blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${project.name}.zip`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
  const remove = useAction(async () => {
    if (!confirm(t("projects.deleteConfirm", { name: project.name }))) return;
    await client.call("project.delete", { id: project.id });
    onDeleted();
  });

  return (
    <div className="column end">
      <div className="row">
        <input
          ref={input}
          type="file"
          accept=".zip,application/zip"
          hidden
          onChange={(event) => {
            const file = event.target.files?.[0];
            event.target.value = "";
            if (file !== undefined) importZip.run(file);
          }}
        />
        <button
          type="button"
          className="quiet"
          disabled={importZip.busy}
          onClick={() => input.current?.click()}
        >
          {t("projects.import")}
        </button>
        <button type="button" className="quiet" disabled={exportZip.busy} onClick={() => exportZip.run()}>
          {t("projects.export")}
        </button>
        <button type="button" className="quiet" disabled={remove.busy} onClick={() => remove.run()}>
          {t("projects.delete")}
        </button>
      </div>
      <ErrorNote error={importZip.error ?? exportZip.error ?? remove.error} />
    </div>
  );
}
