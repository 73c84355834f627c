# The first stage compiles, the second has what runs, the last runs it without root. All of it is JavaScript: the first stage runs on the machine that
# builds, whatever the image is for, and `docker buildx build --platform linux/amd64,linux/arm64 .` makes both.
ARG NODE=node:22-bookworm-slim

FROM --platform=$BUILDPLATFORM ${NODE} AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY tsconfig.json ./
COPY lib ./lib
COPY apps ./apps
COPY tools/bundle.mjs ./tools/bundle.mjs
# The compiler is also an optional peer of a package that stays.
RUN node node_modules/typescript/bin/tsc -p . --sourceMap false --incremental false --tsBuildInfoFile null \
 && node tools/bundle.mjs \
 && npm prune --omit=dev --omit=optional --ignore-scripts

# By itself it is for hosts whose volumes are root's, where each container is alone in a virtual machine: doc/fly.md.
FROM ${NODE} AS root
WORKDIR /app
COPY --from=build /build/node_modules ./node_modules
COPY --from=build /build/dist ./dist
COPY apps/cli/bin ./apps/cli/bin
COPY package.json LICENSE config.schema.json ./
# Keys, secrets and what must survive a restart: /var/lib/symport.
RUN ln -s /app/apps/cli/bin/symport.cjs /usr/local/bin/symport \
 && install -d -m 700 -o node -g node /var/lib/symport
ENV NODE_ENV=production XDG_STATE_HOME=/var/lib
VOLUME /var/lib/symport
EXPOSE 925
STOPSIGNAL SIGTERM
# The server's own socket for the command line answers. Containers that run a node have none: --no-healthcheck.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
  CMD ["node", "-e", "require('http').get({socketPath:'/var/lib/symport/admin.sock',path:'/healthz'},(r)=>process.exit(r.statusCode===200?0:1)).on('error',()=>process.exit(1))"]
ENTRYPOINT ["symport"]
CMD ["server"]

FROM root
USER node
