import { useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { AppError, type MethodResult } from "#schemas";
import { diffHunks } from "../state/diff.ts";
import { bytes } from "../state/format.ts";
import { client } from "../state/session.ts";
import { useAction, useAsync } from "../state/use-async.ts";
import { WithPreview } from "./page-preview.tsx";
import { Badge, ErrorNote } from "./parts.tsx";

type Change = MethodResult<"change.get">;
type ChangeFile = Change["files"][number];
type Side = "current" | "agent";
const FILE_TONES = { added: "good", modified: "accent", deleted: "bad" } as const;
/** What it comes to may be tried first, by the project's own tests; the server ends that by itself. */
const TRIAL_MS = 20 * 60_000;

interface ChangeReviewProps {
  changeId: string;
  /** The project's revision: an open change is compared with it. */
  revision: number;
  /** Of the task it came from: who resolves it asks the same. */
  model: string;
  onDecided: () => void;
}

/** A change to review: every file's difference, sides to choose where it overlaps, apply or reject. */
export function ChangeReview({ changeId, revision: projectRevision, model, onDecided }: ChangeReviewProps) {
  const { t } = useTranslation();
  const change = useAsync(`change ${changeId}`, () => client.call("change.get", { change_id: changeId }));
  const [sides, setSides] = useState<Record<string, Side>>({});
  const { reload } = change;
  const decidedState = change.data !== undefined && change.data.state !== "proposed";
  const comparedWith = useRef(projectRevision);
  useEffect(() => {
    if (decidedState || comparedWith.current === projectRevision) return;
    // What overlaps is shown before somebody presses "apply", and sides are chosen for what is shown.
    comparedWith.current = projectRevision;
    setSides({});
    reload();
  }, [decidedState, projectRevision, reload]);
  const accept = useAction(async (force: boolean) => {
    if (change.data === undefined) return;
    const { data } = change;
    const resolutions = await Promise.all(
      data.conflicts.map(({ path }) => resolution(data, path, sides[path])),
    );
    const { current_revision } = change.data;
    // Sides were chosen against this revision: newer work must not be overwritten by them.
    const decided = resolutions.length === 0 ? {} : { resolutions, current_revision };
    const wanted = { change_id: changeId, force, ...decided };
    await client.call("change.accept", wanted, { timeoutMs: TRIAL_MS }).catch((error: unknown) => {
      // What overlaps may have changed since: show it as it is now, with nothing chosen.
      setSides({});
      change.reload();
      throw error;
    });
    change.reload();
    onDecided();
  });
  const reject = useAction(async () => {
    await client.call("change.reject", { change_id: changeId });
    change.reload();
  });

  const resolve = useAction(async () => {
    await client.call("change.resolve", { change_id: changeId, model });
    onDecided();
  });
  const revert = useAction(async () => {
    await client.call("change.revert", { change_id: changeId });
    onDecided();
  });

  if (change.data === undefined) return <ErrorNote error={change.error} />;
  const { files, conflicts, state, revision } = change.data;
  const open = state === "proposed";
  const failsTogether = accept.error instanceof AppError && accept.error.code === "ResultInvalid";
  const unresolved = open && conflicts.some((conflict) => sides[conflict.path] === undefined);
  return (
    <section className="change" aria-label={t("change.title")} data-testid="change">
      <header className="row between">
        <h3>
          {t("change.title")} · {t("change.files", { count: files.length })}
        </h3>
        {open && (
          <div className="row">
            <button type="button" disabled={reject.busy || accept.busy} onClick={() => reject.run()}>
              {t("change.reject")}
            </button>
            <button
              type="button"
              className="primary"
              disabled={unresolved || reject.busy || accept.busy}
              title={unresolved ? t("change.resolveFirst") : undefined}
              onClick={() => accept.run(false)}
            >
              {t("change.accept")}
            </button>
          </div>
        )}
        {state === "accepted" && (
          <button type="button" className="quiet" disabled={revert.busy} onClick={() => revert.run()}>
            {t("change.revert")}
          </button>
        )}
      </header>
      {state === "accepted" && <p className="note good">{t("change.accepted", { revision })}</p>}
      {state === "rejected" && <p className="note">{t("change.rejected")}</p>}
      <ErrorNote error={accept.error ?? reject.error ?? resolve.error ?? revert.error} />
      {open && (conflicts.length > 0 || failsTogether) && (
        <div className="row">
          <button type="button" disabled={resolve.busy} onClick={() => resolve.run()}>
            {t("change.haveResolved")}
          </button>
          {failsTogether && (
            <button type="button" className="quiet" disabled={accept.busy} onClick={() => accept.run(true)}>
              {t("change.force")}
            </button>
          )}
        </div>
      )}
      {files.map((file) => (
        <FileDiff
          key={file.path}
          file={file}
          conflict={open ? conflicts.find((conflict) => conflict.path === file.path) : undefined}
          side={sides[file.path]}
          onSide={(side) => setSides({ ...sides, [file.path]: side })}
        />
      ))}
    </section>
  );
}

/** The side chosen for a file, whole: what was too large to be shown is read again. */
async function resolution(change: Change, path: string, side: Side | undefined) {
  const kept =
    side === "agent"
      ? change.files.find((file) => file.path === path)?.after
      : change.conflicts.find((conflict) => conflict.path === path)?.current;
  if (kept?.truncated !== true) {
    return { path, content: kept?.content ?? null, encoding: kept?.encoding ?? ("utf8" as const) };
  }
  const { project_id, current_revision: revision } = change;
  const { content, encoding } = await client.call("fs.read", { project_id, path, revision });
  return { path, content, encoding };
}

interface FileDiffProps {
  file: ChangeFile;
  conflict: Change["conflicts"][number] | undefined;
  side: Side | undefined;
  onSide: (side: Side) => void;
}

function FileDiff({ file, conflict, side, onSide }: FileDiffProps) {
  const { t, i18n } = useTranslation();
  const size = bytes((file.after ?? file.before)?.size ?? 0, i18n.language);
  // Who has to choose a side must see both: what the agent began with is neither.
  const before = conflict === undefined ? file.before : conflict.current;
  const truncated = before?.truncated === true || file.after?.truncated === true;
  const isText = before?.encoding !== "base64" && file.after?.encoding !== "base64";
  return (
    <details className="file-diff" open>
      <summary>
        <span className="mono">{file.path}</span>{" "}
        <Badge tone={FILE_TONES[file.status]}>{t(`change.${file.status}`)}</Badge>
      </summary>
      {conflict !== undefined && (
        <fieldset className="note warn" aria-label={t("change.conflict")}>
          <strong>{t(`change.conflicts.${conflict.kind}`)}</strong>
          {conflict.moved_from !== undefined && (
            <span>{t("change.movedFrom", { path: conflict.moved_from })}</span>
          )}
          {(["current", "agent"] as const).map((each) => (
            <label key={each} className="row">
              <input
                type="radio"
                name={`side ${file.path}`}
                checked={side === each}
                // The agent's side of a file too large to be sent here could not be sent back either.
                disabled={each === "agent" && file.after?.truncated === true}
                onChange={() => onSide(each)}
              />
              {t(each === "current" ? "change.keepCurrent" : "change.takeAgent")}
            </label>
          ))}
          <small className="muted">{t("change.againstCurrent")}</small>
        </fieldset>
      )}
      {truncated && <p className="note warn">{t("change.truncated", { size })}</p>}
      {!truncated && !isText && <p className="muted">{t("change.binary", { size })}</p>}
      {!truncated && isText && (
        <WithPreview path={file.path} content={file.after?.content ?? null}>
          <DiffTable path={file.path} before={before?.content ?? null} after={file.after?.content ?? null} />
        </WithPreview>
      )}
    </details>
  );
}

const SIGNS = { added: "+", removed: "−", same: " " } as const;

interface DiffTableProps {
  path: string;
  before: string | null;
  after: string | null;
}

function DiffTable({ path, before, after }: DiffTableProps) {
  const { t } = useTranslation();
  const hunks = diffHunks(before, after);
  if (hunks.length === 0) return <pre>{after ?? before}</pre>;
  return (
    <table className="diff" aria-label={path}>
      <tbody>
        {hunks.flatMap((hunk) => [
          ...(hunk.skipped > 0
            ? [
                <tr key={`skip ${hunk.lines[0]?.after ?? hunk.lines[0]?.before}`} className="skip">
                  <td colSpan={4}>{t("change.unchanged", { count: hunk.skipped })}</td>
                </tr>,
              ]
            : []),
          ...hunk.lines.map((line) => (
            <tr key={`${line.kind} ${line.before} ${line.after}`} className={line.kind}>
              <td className="number">{line.before}</td>
              <td className="number">{line.after}</td>
              <td className="sign">{SIGNS[line.kind]}</td>
              <td className="code">{line.text}</td>
            </tr>
          )),
        ])}
      </tbody>
    </table>
  );
}
