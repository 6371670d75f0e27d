/** The first of each group, then the second of each, and so on; groups and their members in the order they came in. */
export function roundRobin<T>(all: readonly T[], groupOf: (each: T) => string): T[] {
  const groups = Map.groupBy(all, groupOf)
  const order: T[] = []
  for (let turn = 0; order.length < all.length; turn++)
    for (const [group, members] of groups) {
      const next = members[turn]
      if (next === undefined) groups.delete(group)
      else order.push(next)
    }
  return order
}
