export { mkfifo, tryLock } from './linux/libc.ts'
