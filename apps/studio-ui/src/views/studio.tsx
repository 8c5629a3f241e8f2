import { useState } from "react";
import { useTranslation } from "react-i18next";
import type { UserView } from "#schemas";
import { switchLanguage } from "../i18n/index.ts";
import { credits } from "../state/format.ts";
import { client, signOut } from "../state/session.ts";
import { switchTheme } from "../state/theme.ts";
import { useAsync } from "../state/use-async.ts";
import { ErrorNote } from "./parts.tsx";
import { ProjectList } from "./project-list.tsx";
import { ProjectView } from "./project-view.tsx";
import { Settings } from "./settings.tsx";
import { Status } from "./status.tsx";

/** The signed-in page: top bar, projects on the left, the open project beside them. */
export function Studio({ user }: { user: UserView }) {
  const { t } = useTranslation();
  const [projectId, setProjectId] = useState<string | undefined>(undefined);
  const [dialog, setDialog] = useState<"settings" | "status" | undefined>(undefined);
  const [settingsRound, setSettingsRound] = useState(0);
  const projects = useAsync(
    "projects",
    async () => (await client.call("project.list", { limit: 100 })).projects,
  );
  const balance = useAsync("balance", () => client.call("billing.balance", {}));
  const open = projects.data?.find((project) => project.id === projectId);

  return (
    <div className="studio">
      <TopBar user={user} balance={balance.data} onDialog={setDialog} />
      <ProjectList
        projects={projects.data}
        openId={projectId}
        onOpen={setProjectId}
        onChanged={(id) => {
          projects.reload();
          if (id !== undefined) setProjectId(id);
        }}
      />
      <main>
        <ErrorNote error={projects.error} />
        {open === undefined ? (
          <section className="welcome">
            <h1>{t("projects.welcome")}</h1>
            <p>{t("projects.welcomeText")}</p>
            <p className="muted">{t("projects.choose")}</p>
          </section>
        ) : (
          <ProjectView
            key={open.id}
            project={open}
            settingsRound={settingsRound}
            onChanged={projects.reload}
            onDeleted={() => {
              setProjectId(undefined);
              projects.reload();
            }}
            onSpent={balance.reload}
          />
        )}
      </main>
      {dialog === "settings" && (
        <Settings
          user={user}
          onClose={() => {
            setDialog(undefined);
            setSettingsRound(settingsRound + 1);
          }}
        />
      )}
      {dialog === "status" && <Status onClose={() => setDialog(undefined)} />}
    </div>
  );
}

interface TopBarProps {
  user: UserView;
  balance: { balance_microcredits: number; held_microcredits: number } | undefined;
  onDialog: (dialog: "settings" | "status") => void;
}

function TopBar({ user, balance, onDialog }: TopBarProps) {
  const { t, i18n } = useTranslation();
  return (
    <header className="top-bar">
      <span className="logo">CyberDevStudio</span>
      <span className="grow" />
      {balance !== undefined && (
        <span
          className="muted"
          title={t("app.held", { credits: credits(balance.held_microcredits, i18n.language) })}
          data-testid="balance"
        >
          {t("app.balance", { credits: credits(balance.balance_microcredits, i18n.language) })}
        </span>
      )}
      <span data-testid="username">{user.username}</span>
      <button type="button" className="quiet" onClick={() => onDialog("status")}>
        {t("app.status")}
      </button>
      <button type="button" className="quiet" onClick={() => onDialog("settings")}>
        {t("app.settings")}
      </button>
      <button type="button" className="quiet" onClick={() => void switchLanguage()}>
        {t("app.language")}
      </button>
      <button
        type="button"
        className="quiet"
        onClick={switchTheme}
        aria-label={t("app.theme")}
        title={t("app.theme")}
      >
        ◐
      </button>
      <button type="button" className="quiet" onClick={() => void signOut()}>
        {t("app.signOut")}
      </button>
    </header>
  );
}
