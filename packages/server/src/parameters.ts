import { z } from 'zod'

/** Query parameters are text: these turn them into what they mean and say no to what they cannot mean. */

export const integer = (min: number, max: number) =>
  z.preprocess(
    (value) => (typeof value === 'string' && /^\d{1,16}$/.test(value) ? Number(value) : value),
    z.int().min(min).max(max),
  )

export const flag = z.preprocess(
  (value) =>
    value === 'true' || value === '1' || value === '' ? true : value === 'false' || value === '0' ? false : value,
  z.boolean(),
)

/** Given once or several times. */
export const repeated = <T extends z.ZodType>(item: T) =>
  z.preprocess((value) => (Array.isArray(value) || value === undefined ? value : [value]), z.array(item))

/** Byte positions. */
export const Offset = integer(0, Number.MAX_SAFE_INTEGER)
