# The server's own image. The binary is built outside, static, and knows gs://,
# unlike others, which start faster without:
#
#   go tool task server-image
#
# It runs as an ordinary user, who must be in the group of the engine's socket:
# the README has the whole command. A client of MCP starts it as docs/mcp.md says.
#
# Whoever can use that socket is root on the host: publish the port to nobody
# whom you would not trust with that, and set API_KEYS.
FROM scratch
# Whoever publishes the image proves by this that server.json is about it.
LABEL io.modelcontextprotocol.server.name="io.github.vivarium-sandbox/vivarium"
COPY bin/vivarium-image /vivarium
# Whatever the file is, the folder is there and the user's. Files are kept in it,
# or in the volume that is mounted there, unless FILE_STORAGE_DIR or
# FILE_STORAGE_URL says otherwise; roots to trust for https are in the binary.
COPY --chown=65533:65533 LICENSE /files/
ENV HOST=0.0.0.0 PORT=8000 HOME=/ TMPDIR=/files
# This must not be 65532, the user of sandboxes: the kernel counts pipe buffers, inotify
# instances, epoll watches and pending signals by user, so programs could use up the
# server's. It must not be 65534 either, which stands for unknown users.
USER 65533:65533
EXPOSE 8000
ENTRYPOINT ["/vivarium"]
CMD ["serve"]
