import { AsyncLocalStorage } from 'node:async_hooks'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** What can be called in a client, and what of it was. */
export interface CallList {
  /** `Sandbox.create`, `sandbox.kill`, `sandbox.files.read`, `commandHandle.wait`, `waitForPort`. */
  all: string[]
  called: string[]
}

/** What several programs called of one client. */
export function together(lists: readonly CallList[]): CallList {
  const merged = (name: keyof CallList) => [...new Set(lists.flatMap((list) => list[name]))].sort()
  return { all: merged('all'), called: merged('called') }
}

/** Any function, called with whatever a client takes. */
type Callable = ((this: unknown, ...args: unknown[]) => unknown) & { prototype?: unknown }
type Class = Callable & { prototype: object; name: string }

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null
const isCallable = (value: unknown): value is Callable => typeof value === 'function'
const isClass = (value: unknown): value is Class =>
  isCallable(value) && /^class\b/.test(Function.prototype.toString.call(value))
/** Of JavaScript or of Node itself. */
const isBuiltin = (made: Callable): boolean =>
  Reflect.get(globalThis, made.name) === made || !/^class\b/.test(Function.prototype.toString.call(made))
const lower = (name: string): string => name.charAt(0).toLowerCase() + name.slice(1)
/** Bundlers put underscores before the names of classes. */
const plain = (name: string): string => name.replace(/^_+/, '')

/**
 * Watches the calls that a test makes of a client's module, from outside: the prototypes and classes that it exports are wrapped in
 * this process, and so are those of every object that a call gives. What the module calls of itself does not count.
 * The list of calls is that of the exports at run time, without what the package's own declarations call private.
 */
export class Calls {
  readonly #all = new Set<string>()
  readonly #called = new Set<string>()
  /** How objects are called, by their prototype. */
  readonly #labels = new Map<object, string>()
  /** Names of classes, by the prototype of what they make: what stands for a class has the same. */
  readonly #classes = new Map<unknown, string>()
  readonly #wrapped = new Set<object>()
  readonly #inside = new AsyncLocalStorage<true>()
  readonly #hidden: ReadonlyMap<string, ReadonlySet<string>>

  /** `declarations`: a directory with the package's `.d.ts` files. */
  constructor(declarations: string) {
    this.#hidden = hiddenMembers(declarations)
  }

  get list(): CallList {
    const sorted = (set: Set<string>) => [...set].sort()
    return { all: sorted(this.#all), called: sorted(this.#called) }
  }

  /** The module's exports, with functions that are watched. */
  watch<M extends Record<string, unknown>>(module: M): M {
    const exports = Object.entries(module).filter(([name]) => name !== 'default' && name !== 'module.exports')
    exports.sort(([a], [b]) => (a < b ? -1 : 1))
    const classes = exports.filter(([, value]) => isClass(value))
    for (const [name, value] of classes)
      if (isClass(value)) {
        this.#classes.set(value.prototype, name)
        this.#labels.set(value.prototype, lower(name))
      }
    for (const [name, value] of classes)
      if (isClass(value)) {
        this.#methods(value, name, ['length', 'name', 'prototype'], plain(value.name))
        this.#methods(value.prototype, lower(name), ['constructor'], plain(value.name))
      }
    const functions = exports.flatMap(([name, value]) =>
      isCallable(value) && !isClass(value) ? [[name, this.#function(name, value)] as const] : [],
    )
    return { ...module, ...Object.fromEntries(functions) }
  }

  #function(name: string, original: Callable): Callable {
    this.#all.add(name)
    for (const [key, value] of Object.entries(original))
      if (isCallable(value)) Reflect.set(original, key, this.#function(`${name}.${key}`, value))
    const recording = this.#recording(() => name, original)
    // All else that can be done with it stays: some functions are classes that can be called.
    return new Proxy(original, { apply: (_, self, args) => recording.apply(self, args) })
  }

  /** Adds what can be called of a class or prototype, its own and what it inherits within the client. */
  #methods(target: object, label: string, except: string[], className: string): void {
    for (let at: object | null = target; at !== null; at = Object.getPrototypeOf(at)) {
      const owner = isCallable(at) ? at : Reflect.get(at, 'constructor')
      if (at === Object.prototype || at === Function.prototype || !isCallable(owner) || isBuiltin(owner)) return
      const hidden = [...(this.#hidden.get(plain(owner.name)) ?? []), ...(this.#hidden.get(className) ?? [])]
      for (const [key, descriptor] of Object.entries(Object.getOwnPropertyDescriptors(at))) {
        const value: unknown = descriptor.value
        if (!isCallable(value) || isClass(value) || key.startsWith('_')) continue
        if (except.includes(key) || hidden.includes(isCallable(at) ? `static ${key}` : key)) continue
        this.#all.add(`${label}.${key}`)
        if (this.#wrapped.has(value)) continue
        const watched = this.#recording((self) => this.#labelOf(self, key), value)
        this.#wrapped.add(watched)
        Object.defineProperty(at, key, { ...descriptor, value: watched })
      }
    }
  }

  /** The name of a method as it is called of this object or class: that of the nearest class that is known. */
  #labelOf(self: unknown, key: string): string | undefined {
    for (let at: unknown = self; isObject(at) || isCallable(at); at = Object.getPrototypeOf(at)) {
      const label = isCallable(at) ? this.#classes.get(at.prototype) : this.#labels.get(at)
      if (label !== undefined) return `${label}.${key}`
    }
    return undefined
  }

  #recording(label: (self: unknown) => string | undefined, original: Callable): Callable {
    const calls = this
    return Object.defineProperties(
      function (this: unknown, ...args: unknown[]) {
        if (calls.#inside.getStore()) return original.apply(this, args)
        const called = label(this)
        if (called !== undefined) calls.#called.add(called)
        const result = calls.#inside.run(true, () => original.apply(this, args))
        calls.#discover(result)
        // Some promises are more than that; the caller gets the very same.
        if (result instanceof Promise)
          result.then(
            (value) => calls.#discover(value),
            () => undefined,
          )
        return result
      },
      { name: { value: original.name }, length: { value: original.length } },
    )
  }

  #parentOf(prototype: object): string | undefined {
    for (let at: unknown = Object.getPrototypeOf(prototype); isObject(at); at = Object.getPrototypeOf(at)) {
      const label = this.#labels.get(at)
      if (label !== undefined) return label
    }
    return undefined
  }

  /** Learns the class of an object that a call gave, and of what the client hung on it. */
  #discover(value: unknown, label?: string): void {
    if (Array.isArray(value)) for (const each of value) this.#discover(each)
    if (!isObject(value) || Array.isArray(value)) return
    const prototype: object | null = Object.getPrototypeOf(value)
    const made: unknown = prototype === null ? undefined : Reflect.get(prototype, 'constructor')
    if (prototype === null || !isCallable(made) || isBuiltin(made)) {
      // What comes in a plain object, such as the results of several at once.
      if (prototype === Object.prototype && label === undefined)
        for (const each of Object.values(value)) if (isForeign(each)) this.#discover(each)
      return
    }
    const known = this.#labels.get(prototype)
    // A class that a client makes anew, such as one that knows its key, stands for the one it extends.
    const name = known ?? this.#parentOf(prototype) ?? label ?? lower(plain(made.name))
    if (known === undefined) {
      this.#labels.set(prototype, name)
      this.#methods(prototype, name, ['constructor'], plain(made.name))
    }
    if (this.#wrapped.has(value)) return
    this.#wrapped.add(value)
    const hidden = this.#hidden.get(plain(made.name))
    for (const [key, each] of Object.entries(value))
      if (!key.startsWith('_') && !hidden?.has(key) && isForeign(each)) this.#discover(each, `${name}.${key}`)
  }
}

/** Whether it is an object of a class that is neither JavaScript's nor Node's. */
function isForeign(value: unknown): boolean {
  if (!isObject(value) || Array.isArray(value)) return false
  const made: unknown = Reflect.get(value, 'constructor')
  return isCallable(made) && !isBuiltin(made)
}

/** What the declarations of a package call private or protected, by class; `static ` comes before the names of static ones. */
function hiddenMembers(directory: string): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>()
  for (const file of readdirSync(directory).filter((name) => name.endsWith('.d.ts'))) {
    let members = new Set<string>()
    for (const line of readFileSync(join(directory, file), 'utf8').split('\n')) {
      const name = /^(?:export )?declare (?:abstract )?class (\w+)/.exec(line)?.[1]
      if (name !== undefined) {
        members = found.get(plain(name)) ?? new Set()
        found.set(plain(name), members)
      }
      const modifiers = '(?:static |readonly |abstract |async |get |set )*'
      const member = new RegExp(`^\\s+(?:private|protected) (${modifiers})(\\w+)`).exec(line)
      if (member !== null) members.add(`${member[1]?.includes('static') ? 'static ' : ''}${member[2]}`)
    }
  }
  return found
}
