import { useState } from "react";
import { useTranslation } from "react-i18next";
import { client } from "../state/session.ts";
import { useAsync } from "../state/use-async.ts";
import { Composer } from "./composer.tsx";
import { FileView } from "./file-view.tsx";
import { ErrorNote } from "./parts.tsx";
import { ProjectActions } from "./project-actions.tsx";
import type { Project } from "./project-list.tsx";
import { Revisions } from "./revisions.tsx";
import { TaskList } from "./task-list.tsx";

interface ProjectViewProps {
  project: Project;
  settingsRound: number;
  onChanged: () => void;
  onDeleted: () => void;
  onSpent: () => void;
}

/** One project: what was asked and what came of it in the middle, files and history on the right. */
export function ProjectView({ project, settingsRound, onChanged, onDeleted, onSpent }: ProjectViewProps) {
  const { t } = useTranslation();
  const [path, setPath] = useState<string | undefined>(undefined);
  const tree = useAsync(`tree ${project.id} ${project.revision}`, () =>
    client.call("project.open", { id: project.id }),
  );
  const tasks = useAsync(`tasks ${project.id}`, async () => {
    const { tasks: found } = await client.call("agent.history", { project_id: project.id, limit: 20 });
    return found;
  });

  return (
    <div className="project">
      <section className="work">
        <header className="row between">
          <h1>{project.name}</h1>
          <ProjectActions project={project} onChanged={onChanged} onDeleted={onDeleted} />
        </header>
        <Composer
          projectId={project.id}
          settingsRound={settingsRound}
          suggest={tasks.data?.length === 0 && (tree.data?.tree.length ?? 0) > 0}
          onSent={() => {
            tasks.reload();
            onSpent();
          }}
        />
        <ErrorNote error={tasks.error} />
        <TaskList
          tasks={tasks.data}
          revision={project.revision}
          onEnded={() => {
            tasks.reload();
            onSpent();
          }}
          onDecided={() => {
            // Having a change resolved makes another task.
            tasks.reload();
            onChanged();
          }}
        />
      </section>
      <aside>
        <h2>{t("projects.files")}</h2>
        <ErrorNote error={tree.error} />
        {tree.data?.tree.length === 0 && <p className="muted">{t("projects.noFiles")}</p>}
        <ul className="plain files">
          {tree.data?.tree.map((file) => (
            <li key={file.path}>
              <button type="button" className="item mono" onClick={() => setPath(file.path)}>
                {file.path}
              </button>
            </li>
          ))}
        </ul>
        <Revisions project={project} onChanged={onChanged} />
      </aside>
      {path !== undefined && (
        <FileView project={project} path={path} onClose={() => setPath(undefined)} onSaved={onChanged} />
      )}
    </div>
  );
}
