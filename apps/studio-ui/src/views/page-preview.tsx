import { type ReactNode, useState } from "react";
import { useTranslation } from "react-i18next";

const PAGE = /\.(html?|svg)$/i;
/** Where DesignAgent puts its proposals: they are there to be looked at first. */
const PROPOSALS = "design/";

interface WithPreviewProps {
  path: string;
  /** The file's text; null when it is gone. */
  content: string | null;
  /** The source, as the place shows it. */
  children: ReactNode;
}

/** A file's source, and for a page or picture what it looks like beside it. */
export function WithPreview({ path, content, children }: WithPreviewProps) {
  const { t } = useTranslation();
  const [rendered, setRendered] = useState(path.startsWith(PROPOSALS));
  if (content === null || !PAGE.test(path)) return children;
  return (
    <>
      <fieldset className="row choice" aria-label={t("preview.label", { path })}>
        {[true, false].map((each) => (
          <button
            key={String(each)}
            type="button"
            className="quiet"
            aria-pressed={rendered === each}
            onClick={() => setRendered(each)}
          >
            {t(each ? "preview.rendered" : "preview.source")}
          </button>
        ))}
        {rendered && <small className="muted">{t("preview.note")}</small>}
      </fieldset>
      {rendered ? (
        // What a model wrote: no script, no form, no origin; and what the studio's own policy forbids, as any address
        // elsewhere, it forbids in here as well.
        <iframe
          className="preview"
          title={t("preview.label", { path })}
          sandbox=""
          referrerPolicy="no-referrer"
          srcDoc={content}
        />
      ) : (
        children
      )}
    </>
  );
}
