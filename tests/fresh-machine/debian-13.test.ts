import { test } from 'node:test'
import { assertQuickstart } from './quickstart.ts'

test('the quickstart ends well on a fresh Debian 13 with its own nodejs and npm', (t) =>
  assertQuickstart('debian-13', t.signal))
