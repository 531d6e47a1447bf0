/* SPDX-License-Identifier: Apache-2.0
 *
 * The SenML codec: a pack as one item. Owns how names become a device and properties, and times become moments.
 *
 * Source: RFC 8428.
 */
#include "senml.h"

typedef struct {
    char bytes[ID_MOST];
    uint32_t len;
} id;

/* Values of the point that is being written. */
typedef struct {
    uint8_t *head;             /* of its map; NULL while there is none */
    uint32_t count;
    struct { const uint8_t *at; uint32_t len; } keys[GROUP_MOST];
    double time;
    int64_t now_ms;            /* asked for once a pack; 0: not yet */
} point;

static bool is_separator(uint8_t c) { return c == ':' || c == '/' || c == '.' || c == '-' || c == '_'; }
static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

static bool set_id(id *to, const uint8_t *bytes, uint32_t len) {
    if (len > ID_MOST) return false;
    for (uint32_t i = 0; i < len; i++) to->bytes[i] = bytes[i] == '/' ? '.' : (char)bytes[i];
    to->len = len;
    return true;
}

/* Where the device's name ends and the property's begins. With a base name these are the two parts as sent; without one
 * the last slash parts them, or all of it is the device. */
static void split(const record *r, uint32_t *device_len, uint32_t *property_at) {
    *device_len = r->base_name_len;
    *property_at = r->base_name_len;
    if (!r->base_name_len) {
        uint32_t slash = r->name_len;
        while (slash && r->name[slash - 1] != '/') slash--;
        *device_len = slash ? slash : r->name_len;
        *property_at = *device_len;
    }
    while (*device_len > 1 && is_separator(r->name[*device_len - 1])) (*device_len)--;
}

static int32_t name_device(const record *r, id *device) {
    uint32_t device_len, property_at;
    split(r, &device_len, &property_at);
    id found;
    if (!set_id(&found, r->name, device_len)) return gw_error(WRONG_NAME, "a device's name is longer than 64 characters");
    if (!device->len) *device = found;
    bool same = device->len == found.len && memcmp(device->bytes, found.bytes, found.len) == 0;
    return same ? GW_WRITTEN : gw_error(MANY_DEVICES, "the pack speaks of several devices; send a pack of each");
}

/* A property id begins with a letter or underscore. */
static int32_t name_property(const record *r, const char *suffix, id *property) {
    uint32_t device_len, at, used = 0, more = (uint32_t)strlen(suffix);
    split(r, &device_len, &at);
    uint8_t name[NAME_MOST + 8];
    uint32_t len = r->name_len - at;
    if (!len) {
        memcpy(name, "value", 5);
        used = 5;
    } else {
        bool starts_well = !is_digit(r->name[at]) && (!is_separator(r->name[at]) || r->name[at] == '_');
        if (!starts_well) name[used++] = '_';
        memcpy(name + used, r->name + at, len);
        used += len;
    }
    memcpy(name + used, suffix, more);
    return set_id(property, name, used + more) ? GW_WRITTEN
                                               : gw_error(WRONG_NAME, "a property's name is longer than 64 characters");
}

/* Epoch milliseconds of a SenML time; below 2^28 seconds it counts from now (RFC 8428, 4.5.3). */
static int32_t moment_of(double seconds, int64_t *now_ms, int64_t *ms) {
    bool is_relative = seconds < 268435456.0;
    if (is_relative && !*now_ms) *now_ms = gw_now_ms();
    double at = seconds * 1000 + (is_relative ? (double)*now_ms : 0);
    at += at < 0 ? -0.5 : 0.5;
    /* Years 1 to 9999, which the gateway can keep. */
    if (!(at >= -62135596800000.0 && at <= 253402300799999.0)) return gw_error(WRONG_TIME, "a time is outside the calendar");
    *ms = (int64_t)at;
    return GW_WRITTEN;
}

static void write_value(gw_out *out, const record *r) {
    switch (r->kind) {
    case NUMBER: write_number(out, &r->number); break;
    case STRING: gw_str(out, (const char *)r->text.bytes, r->text.len); break;
    case BOOLEAN: gw_bool(out, r->boolean); break;
    case DATA: gw_hex(out, r->text.bytes, r->text.len); break;
    default: gw_nil(out);
    }
}

/* ---- Points: values of one time go together ------------------------------------------------------------------------ */

static void close_point(gw_out *out, point *p) {
    if (p->head && !out->full) gw_close(out, p->head, p->count);
    p->head = NULL;
}

static bool has_key(const point *p, const id *property) {
    for (uint32_t i = 0; i < p->count; i++)
        if (p->keys[i].len == property->len && memcmp(p->keys[i].at, property->bytes, property->len) == 0) return true;
    return false;
}

static int32_t open_point(gw_out *out, point *p, const record *r) {
    int64_t ms = 0;
    /* A time of zero is roughly now: when the pack was received. */
    bool has_time = r->time != 0;
    if (has_time) {
        int32_t status = moment_of(r->time, &p->now_ms, &ms);
        if (status != GW_WRITTEN) return status;
    }
    gw_map(out, 2);
    gw_key(out, "at");
    if (has_time) gw_int(out, ms);
    else gw_nil(out);
    gw_key(out, "values");
    p->head = gw_map_open(out);
    p->count = 0;
    p->time = r->time;
    return GW_WRITTEN;
}

/* Write the key of a value into the point of its time; `opened` counts the points. */
static int32_t write_key(gw_out *out, point *p, const record *r, const char *suffix, uint32_t *opened) {
    id property;
    int32_t status = name_property(r, suffix, &property);
    if (status != GW_WRITTEN) return status;
    if (p->head && (p->time != r->time || p->count == GROUP_MOST || has_key(p, &property))) close_point(out, p);
    if (!p->head) {
        status = open_point(out, p, r);
        if (status != GW_WRITTEN) return status;
        (*opened)++;
    }
    gw_str(out, property.bytes, property.len);
    if (out->full) return GW_WRITTEN;
    p->keys[p->count].at = out->at - property.len;
    p->keys[p->count].len = property.len;
    p->count++;
    return GW_WRITTEN;
}

static int32_t write_points(gw_out *out, const uint8_t *bytes, uint32_t len, id *device) {
    pack p;
    point open = {.head = NULL};
    uint32_t opened = 0;
    uint8_t *points = gw_array_open(out);
    int32_t status = open_pack(&p, bytes, len);
    while (status == GW_WRITTEN) {
        record r;
        bool is_last;
        status = next_record(&p, &r, &is_last);
        if (status != GW_WRITTEN || is_last) break;
        status = name_device(&r, device);
        if (status == GW_WRITTEN && r.kind != NOTHING) {
            status = write_key(out, &open, &r, "", &opened);
            write_value(out, &r);
        }
        if (status == GW_WRITTEN && r.has_sum) {
            status = write_key(out, &open, &r, "_sum", &opened);
            gw_f64(out, r.sum);
        }
    }
    if (status != GW_WRITTEN) return status;
    if (!opened) return gw_error(NO_VALUE, "the pack has base fields only, and no value");
    close_point(out, &open);
    gw_close(out, points, opened);
    return GW_WRITTEN;
}

/* ---- What trying the plugin shows: the resolved records ---------------------------------------------------------------- */

static void write_record(gw_out *out, const record *r) {
    static const char *const labels[] = {"", "v", "vs", "vb", "vd"};
    gw_map(out, 2u + (r->kind != NOTHING) + r->has_unit + r->has_sum + r->has_update_time);
    gw_key(out, "n"); gw_str(out, (const char *)r->name, r->name_len);
    if (r->has_unit) { gw_key(out, "u"); gw_str(out, (const char *)r->unit.bytes, r->unit.len); }
    if (r->kind != NOTHING) { gw_cstr(out, labels[r->kind]); write_value(out, r); }
    if (r->has_sum) { gw_key(out, "s"); gw_f64(out, r->sum); }
    gw_key(out, "t"); gw_f64(out, r->time);
    if (r->has_update_time) { gw_key(out, "ut"); gw_f64(out, r->update_time); }
}

static int32_t write_records(gw_out *out, const uint8_t *bytes, uint32_t len) {
    pack p;
    uint32_t count = 0;
    uint8_t *records = gw_array_open(out);
    int32_t status = open_pack(&p, bytes, len);
    while (status == GW_WRITTEN) {
        record r;
        bool is_last;
        status = next_record(&p, &r, &is_last);
        if (status != GW_WRITTEN || is_last) break;
        write_record(out, &r);
        count++;
    }
    gw_close(out, records, count);
    return status;
}

static int32_t decode(gw_out *out, const uint8_t *bytes, uint32_t len, uint32_t aux) {
    id device = {.len = 0};
    gw_map(out, 4);
    gw_key(out, "kind"); gw_lit(out, "report");
    gw_key(out, "points");
    int32_t status = write_points(out, bytes, len, &device);
    if (status != GW_WRITTEN) return status;
    gw_key(out, "device"); gw_str(out, device.bytes, device.len);
    gw_key(out, "value"); gw_map(out, 1);
    gw_key(out, "records");
    return write_records(out, bytes, len);
}

GW_DECODER(decode)
