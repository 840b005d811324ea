/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames on the control port, which is a virtio-serial port in the appliance and a socket in tests: whole reads, whole writes.
 */
#include "provisioner/runner/runner.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool read_full(int fd, uint8_t *buf, size_t size)
{
    while (size) {
        ssize_t n = read(fd, buf, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        buf += n;
        size -= (size_t)n;
    }
    return true;
}

static void write_full(int fd, const uint8_t *buf, size_t size)
{
    while (size) {
        ssize_t n = write(fd, buf, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            _exit(STEP_PORT_CLOSED);
        buf += n;
        size -= (size_t)n;
    }
}

bool wire_receive(Wire *wire, uint16_t *ret_type, WireReader *ret_payload)
{
    uint8_t raw[WIRE_HEADER_SIZE];
    WireHeader header;

    if (!read_full(wire->fd, raw, sizeof raw) || !wire_unpack_header(raw, &header))
        return false;
    if (!read_full(wire->fd, wire->payload, header.length))
        return false;
    wire->request = header.request;
    *ret_type = header.type;
    *ret_payload = (WireReader){wire->payload, header.length, 0, false};
    return true;
}

void wire_send(Wire *wire, uint16_t type, const void *payload, size_t size)
{
    uint8_t raw[WIRE_HEADER_SIZE + 512];
    bool small = size <= 512;

    wire_pack_header(raw, (uint32_t)size, wire->request, type);
    /* One write for what is short: each is an exit of the virtual machine. */
    if (small && size)
        memcpy(raw + WIRE_HEADER_SIZE, payload, size);
    write_full(wire->fd, raw, WIRE_HEADER_SIZE + (small ? size : 0));
    if (!small)
        write_full(wire->fd, payload, size);
}

void wire_send_frames(Wire *wire, const void *frames, size_t size)
{
    write_full(wire->fd, frames, size);
}

void wire_ok(Wire *wire)
{
    wire_send(wire, WIRE_OK, NULL, 0);
}

void wire_ok_number(Wire *wire, uint64_t value)
{
    uint8_t buf[8];
    WireWriter w = {buf, 0, sizeof buf, false};

    wire_put_number(&w, value, 8);
    wire_send(wire, WIRE_OK, buf, w.size);
}

void wire_err(Wire *wire, int err, const char *format, ...)
{
    char text[WIRE_PATH_MAX + 512];
    uint8_t buf[sizeof text + 8];
    WireWriter w = {buf, 0, sizeof buf, false};
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    wire_put_number(&w, (uint64_t)err, 4);
    wire_put_string(&w, text);
    wire_send(wire, WIRE_ERR, buf, w.size);
}

bool wire_path(WireReader *payload, char out[WIRE_PATH_MAX])
{
    size_t length;
    const char *text = wire_get_string(payload, &length);

    if (!text || length == 0 || length >= WIRE_PATH_MAX)
        return false;
    memcpy(out, text, length);
    out[length] = '\0';
    return true;
}
