import { useTranslation } from "react-i18next";
import { dateTime } from "../state/format.ts";
import { client } from "../state/session.ts";
import { useAction, useAsync } from "../state/use-async.ts";
import { ErrorNote } from "./parts.tsx";
import type { Project } from "./project-list.tsx";

/** A project's history, with a way back to every revision. */
export function Revisions({ project, onChanged }: { project: Project; onChanged: () => void }) {
  const { t, i18n } = useTranslation();
  const history = useAsync(`revisions ${project.id} ${project.revision}`, async () => {
    const { revisions } = await client.call("project.revisions", { project_id: project.id, limit: 30 });
    return revisions;
  });
  const rollback = useAction(async (revision: number) => {
    if (!confirm(t("revisions.rollbackConfirm", { revision }))) return;
    await client.call("project.rollback", { project_id: project.id, revision });
    onChanged();
  });

  return (
    <section>
      <h2>{t("revisions.title")}</h2>
      <ErrorNote error={history.error ?? rollback.error} />
      {history.data?.length === 0 && <p className="muted">{t("revisions.none")}</p>}
      <ol className="plain revisions" data-testid="revisions">
        {history.data?.map((entry) => (
          <li key={entry.revision}>
            <div>
              <strong>{t("revisions.revision", { revision: entry.revision })}</strong> {entry.summary}
            </div>
            <div className="row between">
              <small className="muted">
                {entry.author} · {dateTime(entry.created_at, i18n.language)}
              </small>
              {entry.revision !== project.revision && (
                <button
                  type="button"
                  className="quiet"
                  disabled={rollback.busy}
                  onClick={() => rollback.run(entry.revision)}
                >
                  {t("revisions.rollback")}
                </button>
              )}
            </div>
          </li>
        ))}
      </ol>
    </section>
  );
}
