/** The image of a computer for agents, made of Debian's packages alone; set-up keeps its bootstrap in the cache. */
export const BASE_IMAGE = 'debian:bookworm+ca-certificates,curl,git,procps,python3,sudo'
