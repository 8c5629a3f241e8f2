import { useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { isTerminal, type TaskState, type TaskView } from "#schemas";
import { errorFromWire } from "#schemas/client/wire.ts";
import { credits, dateTime } from "../state/format.ts";
import { client } from "../state/session.ts";
import type { Block, FindingsBlock, TaskLog, ToolBlock, ValidationBlock } from "../state/task-log.ts";
import { useAction, useAsync } from "../state/use-async.ts";
import { useTask } from "../state/use-task.ts";
import { ChangeReview } from "./change-review.tsx";
import { Badge, ErrorNote } from "./parts.tsx";

const TONES = {
  pending: "warn",
  running: "accent",
  completed: "good",
  failed: "bad",
  cancelled: "plain",
} as const satisfies Record<TaskState, string>;

interface TaskProps {
  task: TaskView;
  /** Of the project now. */
  revision: number;
  startOpen: boolean;
  onEnded: () => void;
  onDecided: () => void;
}

export function Task({ task, revision, startOpen, onEnded, onDecided }: TaskProps) {
  const { t, i18n } = useTranslation();
  const [open, setOpen] = useState(startOpen || !isTerminal(task.state));
  return (
    <article className="card task" data-testid="task">
      <header className="row between">
        <div>
          <p className="prompt">{task.prompt}</p>
          <small className="muted">
            {task.agent} ({task.runner}) · {task.model} · {dateTime(task.created_at, i18n.language)}
          </small>
        </div>
        {!open && (
          <div className="row">
            <Badge tone={TONES[task.state]}>{t(`task.${task.state}`)}</Badge>
            <button type="button" className="quiet" onClick={() => setOpen(true)}>
              {t("task.showOutput")}
            </button>
          </div>
        )}
      </header>
      {open && <OpenTask task={task} revision={revision} onEnded={onEnded} onDecided={onDecided} />}
    </article>
  );
}

function OpenTask({ task, revision, onEnded, onDecided }: Omit<TaskProps, "startOpen">) {
  const { t, i18n } = useTranslation();
  const log = useTask(task.task_id);
  const cancel = useAction(async () => {
    await client.call("agent.cancel", { task_id: task.task_id });
  });
  const ended = useRef(onEnded);
  ended.current = onEnded;
  useEffect(() => {
    if (log.done && !isTerminal(task.state)) ended.current();
  }, [log.done, task.state]);

  return (
    <>
      <div className="row">
        <Badge tone={TONES[log.state]}>{t(`task.${log.state}`)}</Badge>
        {log.attempt > 1 && <Badge tone="warn">{t("task.attempt", { attempt: log.attempt })}</Badge>}
        {log.state === "pending" && <Waiting taskId={task.task_id} />}
        {!log.done && log.lastSeq > 0 && (
          <button type="button" className="quiet" disabled={cancel.busy} onClick={() => cancel.run()}>
            {t("task.cancel")}
          </button>
        )}
        {!log.done && log.lastSeq > 0 && <PauseButton taskId={task.task_id} paused={task.paused === true} />}
        {task.network !== undefined && task.network.length > 0 && (
          <Badge tone="warn">{t("task.network", { hosts: task.network.join(", ") })}</Badge>
        )}
      </div>
      <ErrorNote error={cancel.error} />
      <Output log={log} />
      {log.error !== undefined && <ErrorNote error={errorFromWire(log.error)} />}
      {log.usage !== undefined && (
        <small className="muted" data-testid="usage">
          {t("task.tokens", {
            input: new Intl.NumberFormat(i18n.language).format(log.usage.input_tokens),
            output: new Intl.NumberFormat(i18n.language).format(log.usage.output_tokens),
            credits: credits(log.usage.cost_microcredits, i18n.language),
          })}
        </small>
      )}
      {log.changeId !== undefined && (
        <ChangeReview changeId={log.changeId} revision={revision} model={task.model} onDecided={onDecided} />
      )}
      {log.done && log.state === "completed" && log.changeId === undefined && (
        <p className="muted">{t("task.noChange")}</p>
      )}
    </>
  );
}

/** Holds a task, or lets it go on. */
function PauseButton({ taskId, paused: pausedAtFirst }: { taskId: string; paused: boolean }) {
  const { t } = useTranslation();
  const [paused, setPaused] = useState(pausedAtFirst);
  const change = useAction(async () => {
    const method = paused ? "agent.resume" : "agent.pause";
    setPaused((await client.call(method, { task_id: taskId })).paused);
  });
  return (
    <>
      <button type="button" className="quiet" disabled={change.busy} onClick={() => change.run()}>
        {t(paused ? "task.resume" : "task.pause")}
      </button>
      <ErrorNote error={change.error} />
    </>
  );
}

const POLL_MS = 2000;

/** Place in the queue and why it waits, asked for while it does. */
function Waiting({ taskId }: { taskId: string }) {
  const { t } = useTranslation();
  const status = useAsync(`status ${taskId}`, () => client.call("agent.status", { task_id: taskId }));
  const { reload } = status;
  useEffect(() => {
    const timer = setInterval(reload, POLL_MS);
    return () => clearInterval(timer);
  }, [reload]);
  const { position, reason } = status.data ?? {};
  return (
    <span className="muted">
      {position !== undefined && t("task.position", { position })}
      {reason !== undefined && ` · ${t(`reason.${reason}`)}`}
    </span>
  );
}

function Output({ log }: { log: TaskLog }) {
  const { t } = useTranslation();
  if (log.blocks.length === 0) {
    return log.state === "running" ? <p className="muted pulse">{t("task.starting")}</p> : null;
  }
  return (
    <section className="output" aria-label={t("task.output")} aria-live="polite" data-testid="output">
      {log.blocks.map((block) => (
        <OutputBlock key={block.key} block={block} />
      ))}
    </section>
  );
}

function OutputBlock({ block }: { block: Block }) {
  if (block.kind === "tool") return <Tool block={block} />;
  if (block.kind === "validation") return <Validation block={block} />;
  if (block.kind === "findings") return <Findings block={block} />;
  return <p className={block.kind === "text" ? "text" : "text muted"}>{block.text}</p>;
}

const MARKS = { pending: "○", running: "◔", completed: "✓", failed: "✗" } as const;

function Tool({ block }: { block: ToolBlock }) {
  return (
    <details className={`tool ${block.status}`}>
      <summary>
        <span aria-hidden="true">{MARKS[block.status]}</span> <strong>{block.name}</strong>{" "}
        <span className="mono">{block.title}</span>
      </summary>
      {block.output !== "" && <pre>{block.output}</pre>}
    </details>
  );
}

function Validation({ block }: { block: ValidationBlock }) {
  const { t } = useTranslation();
  return (
    <details className={`tool ${block.passed ? "completed" : "failed"}`} open={!block.passed}>
      <summary>
        <span aria-hidden="true">{MARKS[block.passed ? "completed" : "failed"]}</span>{" "}
        <strong>{t(block.passed ? "task.valid" : "task.invalid", { round: block.round })}</strong>
      </summary>
      {block.problems.length > 0 && (
        <ul>
          {block.problems.map((problem) => (
            <li key={problem}>{problem}</li>
          ))}
        </ul>
      )}
      {block.checks.map((check) => (
        <details key={check.name} className={`tool ${check.passed ? "completed" : "failed"}`}>
          <summary>
            <span aria-hidden="true">{MARKS[check.passed ? "completed" : "failed"]}</span> {check.name}
          </summary>
          {check.output !== "" && <pre>{check.output}</pre>}
        </details>
      ))}
    </details>
  );
}

function Findings({ block }: { block: FindingsBlock }) {
  const { t } = useTranslation();
  if (block.findings.length === 0) return <p className="text">{t("task.noFindings")}</p>;
  return (
    <ul data-testid="findings">
      {block.findings.map((finding) => (
        <li key={`${finding.file}:${finding.line} ${finding.cwe} ${finding.title}`}>
          <details className="tool">
            <summary>
              <strong>{t(`severity.${finding.severity}`)}</strong> {finding.title}{" "}
              <span className="mono">
                {finding.file}:{finding.line} {finding.cwe}
              </span>
            </summary>
            <p className="text">{finding.detail}</p>
            {finding.fix !== undefined && <p className="text muted">{finding.fix}</p>}
          </details>
        </li>
      ))}
    </ul>
  );
}
