import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import type { UserView } from "#schemas";
import { onSessionEnd, resume } from "./state/session.ts";
import { SignIn } from "./views/sign-in.tsx";
import { Studio } from "./views/studio.tsx";

type Phase = { name: "starting" } | { name: "offline" } | { name: "out" } | { name: "in"; user: UserView };
const RETRY_MS = 2000;

/** Signed in or not: an earlier session is taken up first, and an unreachable server waited for. */
export function App() {
  const { t } = useTranslation();
  const [phase, setPhase] = useState<Phase>({ name: "starting" });

  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let current = true;
    const attempt = () => {
      resume().then(
        (user) => current && setPhase(user === undefined ? { name: "out" } : { name: "in", user }),
        () => {
          if (!current) return;
          setPhase({ name: "offline" });
          timer = setTimeout(attempt, RETRY_MS);
        },
      );
    };
    attempt();
    const stop = onSessionEnd(() => setPhase({ name: "out" }));
    return () => {
      current = false;
      clearTimeout(timer);
      stop();
    };
  }, []);

  if (phase.name === "in") return <Studio user={phase.user} />;
  if (phase.name === "out") return <SignIn onSignedIn={(user) => setPhase({ name: "in", user })} />;
  return (
    <main className="center" aria-busy="true">
      <p role="status">{t(phase.name === "offline" ? "app.offline" : "app.loading")}</p>
    </main>
  );
}
