import type { Part } from '../part.ts'
import { bulk } from './p1-bulk.ts'
import { requests } from './p2-requests.ts'
import { latency } from './p3-latency.ts'
import { connections } from './p4-connections.ts'
import { latencyUnderBulk } from './p5-latency-under-bulk.ts'
import { manyIdle } from './p6-many-idle.ts'
import { longFatPath } from './p7-long-fat-path.ts'
import { idle } from './p8-idle.ts'
import { start } from './p9-start.ts'
import { httpsName } from './p10-https-name.ts'

/** In the order they run. A new part is a file here and a place in this list. */
export const PARTS: readonly Part[] = [
  bulk,
  requests,
  latency,
  connections,
  latencyUnderBulk,
  manyIdle,
  longFatPath,
  idle,
  start,
  httpsName,
]
