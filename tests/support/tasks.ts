import { setTimeout as sleep } from "node:timers/promises";
import { isTerminal, type TaskEvent, type TaskView } from "#schemas";
import type { TestUser } from "./studio.ts";

/** Wait until a task has ended; throws after `timeoutMs`. */
export async function ended(user: TestUser, taskId: string, timeoutMs = 120_000): Promise<TaskView> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const task = await user.client.call("agent.status", { task_id: taskId });
    if (isTerminal(task.state)) return task;
    if (performance.now() > end) {
      throw new Error(
        `task ${taskId} is still ${task.state} (${task.reason ?? "no reason"}) after ${timeoutMs} ms`,
      );
    }
    await sleep(100);
  }
}

/** Every event of a task over SSE until the server closes the stream. */
export async function eventsOf(url: string, user: TestUser, taskId: string): Promise<TaskEvent[]> {
  const response = await fetch(`${url}/tasks/${taskId}/events`, {
    headers: { authorization: `Bearer ${user.session.access_token}` },
    signal: AbortSignal.timeout(120_000),
  });
  const text = await response.text();
  return text
    .split("\n\n")
    .flatMap((block) => block.split("\n").filter((line) => line.startsWith("data:")))
    .map((line) => JSON.parse(line.slice(5)) as TaskEvent);
}

/** A project with the sample in it and a task for it. */
export async function dispatch(
  user: TestUser,
  task: { prompt: string; model: string; template?: "empty" | "sample"; projectName?: string },
): Promise<{ projectId: string; taskId: string }> {
  const project = await user.client.call("project.create", {
    name: task.projectName ?? "Test",
    template: task.template ?? "empty",
  });
  const { task_id } = await user.client.call("agent.dispatch", {
    agent: "CodeAgent",
    project_id: project.id,
    prompt: task.prompt,
    model: task.model,
  });
  return { projectId: project.id, taskId: task_id };
}
