import { useState } from "react";
import { useTranslation } from "react-i18next";
import type { UserView } from "#schemas";
import { switchLanguage } from "../i18n/index.ts";
import { register, signIn } from "../state/session.ts";
import { useAction } from "../state/use-async.ts";
import { ErrorNote } from "./parts.tsx";

export function SignIn({ onSignedIn }: { onSignedIn: (user: UserView) => void }) {
  const { t } = useTranslation();
  const [isNew, setIsNew] = useState(false);
  const [username, setUsername] = useState("");
  const [password, setPassword] = useState("");
  const submit = useAction(async () => {
    onSignedIn(await (isNew ? register(username, password) : signIn(username, password)));
  });

  return (
    <main className="center">
      <form
        className="card sign-in"
        onSubmit={(event) => {
          event.preventDefault();
          submit.run();
        }}
      >
        <div className="row between">
          <h1 className="logo">CyberDevStudio</h1>
          <button type="button" className="quiet" onClick={() => void switchLanguage()}>
            {t("app.language")}
          </button>
        </div>
        <p className="muted">{t("app.tagline")}</p>
        <h2>{t(isNew ? "signIn.register" : "signIn.title")}</h2>
        <label>
          {t("signIn.username")}
          <input
            name="username"
            autoComplete="username"
            autoCapitalize="none"
            maxLength={254}
            value={username}
            onChange={(event) => setUsername(event.target.value)}
            required
          />
          {isNew && <small className="muted">{t("signIn.usernameHint")}</small>}
        </label>
        <label>
          {t("signIn.password")}
          <input
            name="password"
            type="password"
            autoComplete={isNew ? "new-password" : "current-password"}
            minLength={isNew ? 8 : undefined}
            value={password}
            onChange={(event) => setPassword(event.target.value)}
            required
          />
          {isNew && <small className="muted">{t("signIn.passwordHint")}</small>}
        </label>
        <ErrorNote
          error={submit.error}
          words={{ Unauthenticated: t("signIn.wrong"), Conflict: t("signIn.taken") }}
        />
        <button type="submit" className="primary" disabled={submit.busy}>
          {t(isNew ? "signIn.submitRegister" : "signIn.submit")}
        </button>
        <button
          type="button"
          className="quiet"
          onClick={() => {
            setIsNew(!isNew);
            submit.clear();
          }}
        >
          {t(isNew ? "signIn.toSignIn" : "signIn.toRegister")}
        </button>
        {!isNew && <small className="muted">{t("signIn.firstAdmin")}</small>}
      </form>
    </main>
  );
}
