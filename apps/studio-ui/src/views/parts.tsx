import { type ReactNode, useEffect, useRef } from "react";
import { useTranslation } from "react-i18next";
import { AppError, type ErrorCode } from "#schemas";

interface ErrorNoteProps {
  error: unknown;
  /** Where the place knows better than the catalogue what a code means: that alone is said. */
  words?: Partial<Record<ErrorCode, string>>;
}

/** What a person can read of anything thrown: the catalogue's words, then the server's, then its hint. */
export function ErrorNote({ error, words }: ErrorNoteProps) {
  const { t, i18n } = useTranslation();
  if (error === undefined || error === null) return null;
  const known = error instanceof AppError ? error : new AppError("Unavailable", String(error));
  const own = words?.[known.code];
  if (own !== undefined) {
    return (
      <div className="note bad" role="alert">
        <strong>{own}</strong>
      </div>
    );
  }
  const key = `errors.${known.code}`;
  const title = i18n.exists(key) ? t(key as "errors.InternalError") : known.message;
  const issues = known.details.issues?.map((issue) => `${issue.path}: ${issue.message}`).join("; ");
  // The message of what is wrong with fields is the first of the issues.
  const detail = [issues ?? known.message, known.details.hint].filter(
    (part) => part !== undefined && part !== title,
  );
  return (
    <div className="note bad" role="alert">
      <strong>{title}</strong>
      {detail.length > 0 && <span className="muted"> {detail.join(" · ")}</span>}
    </div>
  );
}

/** A modal dialog by the browser's own element: focus is kept inside, Escape closes. */
export function Dialog({
  title,
  onClose,
  children,
}: {
  title: string;
  onClose: () => void;
  children: ReactNode;
}) {
  const { t } = useTranslation();
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    ref.current?.showModal();
  }, []);
  return (
    <dialog ref={ref} onClose={onClose} aria-label={title}>
      <header className="row between">
        <h2>{title}</h2>
        <button type="button" className="quiet" onClick={onClose} aria-label={t("app.close")}>
          ✕
        </button>
      </header>
      {children}
    </dialog>
  );
}

export function Badge({
  tone,
  children,
}: {
  tone: "good" | "bad" | "warn" | "plain" | "accent";
  children: ReactNode;
}) {
  return <span className={`badge ${tone}`}>{children}</span>;
}

interface ChoiceProps {
  label: string;
  title?: string | undefined;
  /** Value and words of each. */
  options: readonly (readonly [string, string])[];
  value: string;
  onChange: (value: string) => void;
}

export function Choice({ label, title, options, value, onChange }: ChoiceProps) {
  return (
    <label className="row">
      {label}
      <select value={value} title={title} onChange={(event) => onChange(event.target.value)}>
        {options.map(([name, words]) => (
          <option key={name} value={name}>
            {words}
          </option>
        ))}
      </select>
    </label>
  );
}
