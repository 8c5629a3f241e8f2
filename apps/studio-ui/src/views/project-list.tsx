import { useState } from "react";
import { useTranslation } from "react-i18next";
import type { MethodResult } from "#schemas";
import { client } from "../state/session.ts";
import { useAction } from "../state/use-async.ts";
import { ErrorNote } from "./parts.tsx";

export type Project = MethodResult<"project.list">["projects"][number];

interface ProjectListProps {
  projects: Project[] | undefined;
  openId: string | undefined;
  onOpen: (id: string) => void;
  /** The list changed; the id is the project to open now, if any. */
  onChanged: (id?: string) => void;
}

export function ProjectList({ projects, openId, onOpen, onChanged }: ProjectListProps) {
  const { t } = useTranslation();
  const [name, setName] = useState("");
  const create = useAction(async (template: "empty" | "sample", title: string) => {
    const project = await client.call("project.create", { name: title, template });
    setName("");
    onChanged(project.id);
  });

  return (
    <nav className="side-bar" aria-label={t("projects.title")}>
      <h2>{t("projects.title")}</h2>
      {projects?.length === 0 && <p className="muted">{t("projects.empty")}</p>}
      <ul className="plain">
        {projects?.map((project) => (
          <li key={project.id}>
            <button
              type="button"
              className={project.id === openId ? "item current" : "item"}
              aria-current={project.id === openId}
              onClick={() => onOpen(project.id)}
            >
              {project.name}
            </button>
          </li>
        ))}
      </ul>
      <button
        type="button"
        className={projects?.length === 0 ? "primary" : ""}
        disabled={create.busy}
        onClick={() => create.run("sample", t("projects.sampleName"))}
      >
        {t("projects.sample")}
      </button>
      <form
        className="row"
        onSubmit={(event) => {
          event.preventDefault();
          create.run("empty", name);
        }}
      >
        <input
          aria-label={t("projects.name")}
          placeholder={t("projects.create")}
          value={name}
          onChange={(event) => setName(event.target.value)}
          maxLength={200}
          required
        />
        <button type="submit" disabled={create.busy || name.trim() === ""}>
          {t("projects.createSubmit")}
        </button>
      </form>
      <ErrorNote error={create.error} />
    </nav>
  );
}
