import { test } from 'node:test'
import { assertQuickstart } from './quickstart.ts'

test('the quickstart ends well on a fresh Debian 12 with nothing but Node 20 and npm', (t) =>
  assertQuickstart('debian-12', t.signal))
