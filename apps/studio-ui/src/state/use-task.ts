import { useEffect, useState } from "react";
import { client } from "./session.ts";
import { emptyLog, foldEvent, type TaskLog } from "./task-log.ts";

/** Follow a task live; events of one burst are folded in one render. */
export function useTask(taskId: string): TaskLog {
  const [log, setLog] = useState<TaskLog>(emptyLog);
  useEffect(() => {
    setLog(emptyLog);
    let folded = emptyLog;
    let frame = 0;
    const subscription = client.subscribeTask(taskId, {
      onEvent(event) {
        folded = foldEvent(folded, event);
        if (frame !== 0) return;
        frame = requestAnimationFrame(() => {
          frame = 0;
          setLog(folded);
        });
      },
    });
    return () => {
      subscription.close();
      if (frame !== 0) cancelAnimationFrame(frame);
    };
  }, [taskId]);
  return log;
}
