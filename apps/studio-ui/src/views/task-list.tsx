import { useTranslation } from "react-i18next";
import type { TaskView } from "#schemas";
import { Task } from "./task.tsx";

interface TaskListProps {
  tasks: TaskView[] | undefined;
  revision: number;
  onEnded: () => void;
  onDecided: () => void;
}

/** What was asked in this project, newest first; the newest one and all that still run are open. */
export function TaskList({ tasks, revision, onEnded, onDecided }: TaskListProps) {
  const { t } = useTranslation();
  if (tasks === undefined) return null;
  return (
    <section aria-label={t("task.history")}>
      <h2>{t("task.history")}</h2>
      {tasks.length === 0 && <p className="muted">{t("task.none")}</p>}
      {tasks.map((task, index) => (
        <Task
          key={task.task_id}
          task={task}
          revision={revision}
          startOpen={index === 0}
          onEnded={onEnded}
          onDecided={onDecided}
        />
      ))}
    </section>
  );
}
