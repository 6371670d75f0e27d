import type { Manifest } from './manifest.ts'

export interface SnapshotTree {
  manifest: Manifest
  children: SnapshotTree[]
}

/**
 * The snapshots by their parent links, oldest first. A parent that is not there, or is another one under the same id
 * (its checksum differs), makes its child a root. So does a link that would close a circle.
 */
export function tree(manifests: Manifest[]): SnapshotTree[] {
  const sorted = [...manifests].sort((a, b) => a.createdAt.localeCompare(b.createdAt) || (a.id < b.id ? -1 : 1))
  const nodes = new Map(sorted.map((manifest) => [manifest.id, { manifest, children: [] as SnapshotTree[] }]))
  const parentOf = ({ parent }: Manifest) => {
    const found = parent && nodes.get(parent.id)
    return found && (parent.manifest ?? found.manifest.checksum) === found.manifest.checksum ? found : undefined
  }
  const inCircle = (start: Manifest): boolean => {
    const seen = new Set([start.id])
    for (let next = parentOf(start); next; next = parentOf(next.manifest)) {
      if (next.manifest.id === start.id) return true
      if (seen.has(next.manifest.id)) return false
      seen.add(next.manifest.id)
    }
    return false
  }
  const roots: SnapshotTree[] = []
  for (const node of nodes.values()) {
    const parent = parentOf(node.manifest)
    if (parent && !inCircle(node.manifest)) parent.children.push(node)
    else roots.push(node)
  }
  return roots
}
