import { allFamilies, removeInstanceGroups, staleInstances } from "../limits/cgroup-files.ts";
import type { CleanSource } from "./source.ts";

/** Control groups of servers that are no more, in every hierarchy, with the processes in them; one candidate per server. */
export const groupSource: CleanSource = {
  name: "groups",
  async list() {
    const families = await allFamilies();
    const names = new Set((await Promise.all(families.map(staleInstances))).flat());
    return [...names].map((instance) => ({
      id: instance,
      idleSince: null,
      async remove() {
        await removeInstanceGroups(families, instance);
        return "removed";
      },
    }));
  },
};
