import manifest from '../package.json' with { type: 'json' }

/** Of Icebox, as `icebox --version` and the API say it. */
export const VERSION: string = manifest.version
