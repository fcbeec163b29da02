# A small image: the gateway, the C library it is linked with, and the roots of trust. No shell, no package manager.
# The program is built twice, the second time by a profile of the first under load (benches/guided.sh): ten minutes and more.
#
#   docker build -t tenure .
#   docker run -v ./config.toml:/etc/tenure/config.toml:ro -p 8080:8080 tenure
#
# The configuration has to listen on 0.0.0.0 for that. The store belongs on a volume: `-v tenure:/var/lib/tenure` with
# `[store] path = "/var/lib/tenure"`; its default, beside the configuration, cannot be written to here.
ARG BUILDER=rust:1.95-bookworm

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
RUN benches/guided.sh

# What the image will hold: the libraries are those that the program asks for, with the words of their licences.
# Should one be missed, the program does not start: tests/docker.sh would tell.
# hadolint ignore=DL4006
RUN set -eu; \
    mkdir -p /image/usr/bin /image/etc/tenure /image/var/lib/tenure /image/tmp; \
    cp target/guided/tenure /image/usr/bin/; \
    ldd target/guided/tenure | grep -o '/[^ ]*' | xargs -I '{}' cp --parents -L '{}' /image; \
    for package in libc6 libgcc-s1; do cp --parents "/usr/share/doc/$package/copyright" /image; done; \
    cp --parents -L /etc/ssl/certs/ca-certificates.crt /image; \
    echo 'tenure:x:65532:65532::/var/lib/tenure:/' > /image/etc/passwd; \
    echo 'tenure:x:65532:' > /image/etc/group; \
    echo 'hosts: files dns' > /image/etc/nsswitch.conf; \
    chmod 1777 /image/tmp; \
    chown 65532:65532 /image/var/lib/tenure

FROM scratch
COPY --from=build /image/ /
USER 65532:65532
WORKDIR /var/lib/tenure
# Plain HTTP, HTTPS, and the admin listener.
EXPOSE 8080 8443 9901
ENTRYPOINT ["/usr/bin/tenure"]
CMD ["serve", "--config", "/etc/tenure/config.toml"]
