/** Room on a disk for bytes that are about to be written there. */
export interface SpaceClaim extends Disposable {
  /** So many bytes more will be written. Throws NoSpace when they do not fit; then as many are claimed as before. */
  grow(bytes: number): void
  /** Nothing more will be written. Releasing again does nothing. */
  release(): void
}
