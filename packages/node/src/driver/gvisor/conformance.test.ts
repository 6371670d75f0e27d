import { driverConformance } from '../conformance.ts'
import { GvisorInstallation, testImage } from './testing.ts'

driverConformance('gvisor', {
  imageDigest: async (signal) => (await testImage(signal)).digest,
  install: (signal) => GvisorInstallation.make(signal),
})
