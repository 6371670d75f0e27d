import type { Scenario } from '../scenario.ts'
import { burst } from './burst.ts'
import { cold } from './cold.ts'
import { create } from './create.ts'
import { density } from './density.ts'
import { e2b } from './e2b.ts'
import { exec } from './exec.ts'
import { fair } from './fair.ts'
import { fork } from './fork.ts'
import { gateway } from './gateway.ts'
import { idle } from './idle.ts'
import { image } from './image.ts'
import { pause } from './pause.ts'
import { resume } from './resume.ts'
import { scale } from './scale.ts'
import { start } from './start.ts'

/** In the order in which they are run. */
export const SCENARIOS: readonly Scenario[] = [
  create,
  burst,
  cold,
  exec,
  fork,
  pause,
  resume,
  density,
  image,
  e2b,
  gateway,
  scale,
  start,
  idle,
  fair,
]
