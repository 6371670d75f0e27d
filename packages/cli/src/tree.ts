import type { WireSnapshot } from '@icebox/sdk'
import { ago, paint, size } from './output.ts'
import { visible } from './visible.ts'

export interface Branch extends WireSnapshot {
  children: Branch[]
}

/** Snapshots by their parents, oldest first. One whose parent is not among them stands at the root. */
export function treeOf(snapshots: readonly WireSnapshot[]): Branch[] {
  const oldestFirst = snapshots.toSorted((a, b) => a.createdAt.localeCompare(b.createdAt) || a.id.localeCompare(b.id))
  const branches = new Map(oldestFirst.map((snapshot) => [snapshot.id, { ...snapshot, children: [] as Branch[] }]))
  const roots: Branch[] = []
  for (const branch of branches.values()) {
    const parent = branch.parentId === undefined ? undefined : branches.get(branch.parentId)
    ;(parent?.children ?? roots).push(branch)
  }
  return roots
}

export function drawTree(roots: readonly Branch[]): string {
  const lines: string[] = []
  const draw = (branch: Branch, lead: string, below: string) => {
    lines.push(`${paint('dim', lead)}${describe(branch)}`)
    branch.children.forEach((child, index) => {
      const last = index === branch.children.length - 1
      draw(child, `${below}${last ? '└─ ' : '├─ '}`, `${below}${last ? '   ' : '│  '}`)
    })
  }
  for (const root of roots) draw(root, '', '')
  return lines.join('\n')
}

function describe({ id, name, kind, sandboxId, template, sizeBytes, createdAt, status }: Branch): string {
  const facts = [
    name === undefined ? undefined : paint('bold', visible(name)),
    kind,
    template === undefined ? undefined : `template ${visible(template)}`,
    sandboxId === '' ? undefined : `of ${visible(sandboxId)}`,
    sizeBytes === undefined ? undefined : size(sizeBytes),
    status.state === 'Ready' ? undefined : status.state,
    ago(createdAt),
  ]
  return `${visible(id)}  ${facts.filter((fact) => fact !== undefined).join(', ')}`
}
