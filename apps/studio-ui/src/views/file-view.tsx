import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { bytes } from "../state/format.ts";
import { client } from "../state/session.ts";
import { useAction, useAsync } from "../state/use-async.ts";
import { WithPreview } from "./page-preview.tsx";
import { Dialog, ErrorNote } from "./parts.tsx";
import type { Project } from "./project-list.tsx";

interface FileViewProps {
  project: Project;
  path: string;
  onClose: () => void;
  onSaved: () => void;
}

/** Read a file and change it by hand; a save is based on the revision that was read. */
export function FileView({ project, path, onClose, onSaved }: FileViewProps) {
  const { t, i18n } = useTranslation();
  const file = useAsync(`file ${project.id} ${path}`, () =>
    client.call("fs.read", { project_id: project.id, path }),
  );
  const [content, setContent] = useState("");
  useEffect(() => {
    if (file.data !== undefined) setContent(file.data.content);
  }, [file.data]);
  const save = useAction(async () => {
    if (file.data === undefined) return;
    await client.call("project.file.save", {
      project_id: project.id,
      path,
      content,
      base_revision: file.data.revision,
    });
    onSaved();
    onClose();
  });

  return (
    <Dialog title={path} onClose={onClose}>
      <ErrorNote error={file.error ?? save.error} />
      {file.data?.encoding === "base64" && (
        <p className="muted">{t("change.binary", { size: bytes(file.data.size, i18n.language) })}</p>
      )}
      {file.data?.encoding === "utf8" && (
        <>
          <WithPreview path={path} content={content}>
            <textarea
              className="editor mono"
              aria-label={path}
              spellCheck={false}
              value={content}
              onChange={(event) => setContent(event.target.value)}
            />
          </WithPreview>
          <div className="row end">
            <button type="button" onClick={onClose}>
              {t("app.cancel")}
            </button>
            <button
              type="button"
              className="primary"
              disabled={save.busy || content === file.data.content}
              onClick={() => save.run()}
            >
              {t("settings.save")}
            </button>
          </div>
        </>
      )}
    </Dialog>
  );
}
