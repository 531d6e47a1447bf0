/* {{name}}: decodes the frames of an example sensor, and encodes what the sensor is told. README.md has the layout.
 *
 * Put your device in its place: keep the shape (check, look at the type, read, write an item), change the fields.
 */
#include "gw1.h"

enum { IDLE = 0x00, READING, MESSAGE, TOTALS, HISTORY, DONE, FIRMWARE, ACK = 0x81, SET_INTERVAL };
enum { PROBE_BROKEN = GW_OWN, NOT_TEXT };
enum { HEAD = 4, MOST_PREFIX = 32, MOST_POINTS = 1000 };

/* What the sensors' numbers are called by: `config.prefix`, "sensor-" where nobody says. */
static struct {
    char text[MOST_PREFIX];
    uint32_t len;
} prefix = {"sensor-", 7};

static int32_t init(gw_in host) {
    gw_in config;
    gw_value wanted = {.type = GW_T_END};
    if (gw_find(host, "config", &config)) wanted = gw_get(config, "prefix");
    if (wanted.type == GW_T_END) return 0;
    if (wanted.type != GW_T_STR || wanted.len > MOST_PREFIX)
        return gw_error(GW_BAD_CONFIG, "config.prefix must be a text of at most 32 bytes");
    memcpy(prefix.text, wanted.text, wanted.len);
    prefix.len = wanted.len;
    return 0;
}
GW_INIT(init)

/* The head of every item: `kind` and `device`; the caller says how many more keys follow. */
static void item(gw_out *out, const char *kind, uint16_t sensor, uint32_t more) {
    char name[MOST_PREFIX + 5];
    char digits[5];
    uint32_t len = prefix.len, n = 0;
    memcpy(name, prefix.text, len);
    do digits[n++] = (char)('0' + sensor % 10);
    while (sensor /= 10);
    while (n) name[len++] = digits[--n];

    gw_map(out, 2 + more);
    gw_key(out, "kind");   gw_cstr(out, kind);
    gw_key(out, "device"); gw_str(out, name, len);
}

static int32_t reading(gw_out *out, uint16_t sensor, const uint8_t *at) {
    int16_t tenths = (int16_t)gw_be16(at);
    if (tenths == INT16_MIN) return gw_error(PROBE_BROKEN, "the probe is broken");
    item(out, "report", sensor, 2);
    gw_key(out, "points"); gw_array(out, 1);
        gw_map(out, 1);
        gw_key(out, "values"); gw_map(out, 3);
            gw_key(out, "temperature"); gw_f64(out, tenths / 10.0);
            gw_key(out, "humidity");    gw_uint(out, at[2]);
            gw_key(out, "battery_mv");  gw_uint(out, gw_be16(at + 3));
    /* Goes through `encode` once the reading is stored, and then to the sensor. */
    gw_key(out, "ack"); gw_map(out, 2);
        gw_key(out, "command"); gw_lit(out, "ack");
        gw_key(out, "args");    gw_map(out, 2);
            gw_key(out, "sensor"); gw_uint(out, sensor);
            gw_key(out, "type");   gw_uint(out, READING);
    return GW_WRITTEN;
}

static int32_t message(gw_out *out, uint16_t sensor, const uint8_t *text, uint32_t len) {
    if (!gw_is_utf8(text, len)) return gw_error(NOT_TEXT, "the message is not UTF-8");
    item(out, "event", sensor, 1);
    gw_key(out, "event"); gw_map(out, 2);
        gw_key(out, "name"); gw_lit(out, "message");
        gw_key(out, "data"); gw_map(out, 1);
            gw_key(out, "text"); gw_str(out, (const char *)text, len);
    return GW_WRITTEN;
}

static int32_t totals(gw_out *out, uint16_t sensor, const uint8_t *at) {
    item(out, "report", sensor, 1);
    gw_key(out, "points"); gw_array(out, 1);
        gw_map(out, 1);
        gw_key(out, "values"); gw_map(out, 2);
            gw_key(out, "pulses");    gw_uint(out, gw_be64(at));
            gw_key(out, "energy_wh"); gw_int(out, (int64_t)gw_be64(at + 8));
    return GW_WRITTEN;
}

static int32_t history(gw_out *out, uint16_t sensor, const uint8_t *at) {
    uint64_t second = gw_be32(at);
    uint32_t step = gw_be16(at + 4), count = gw_be16(at + 6);
    double temperature = (int16_t)gw_be16(at + 8) / 10.0;
    /* Ten bytes must not cost the gateway a megabyte. */
    if (count > MOST_POINTS) return gw_error(GW_TOO_LARGE, "more than 1000 points of history");
    item(out, "report", sensor, 1);
    gw_key(out, "points"); gw_array(out, count);
    for (uint32_t i = 0; i < count; i++, second += step) {
        gw_map(out, 2);
        gw_key(out, "at");     gw_uint(out, second * 1000);
        gw_key(out, "values"); gw_map(out, 1);
            gw_key(out, "temperature"); gw_f64(out, temperature);
    }
    return GW_WRITTEN;
}

static int32_t done(gw_out *out, uint16_t sensor, const uint8_t *at) {
    item(out, "reply", sensor, 2);
    gw_key(out, "reply_to"); gw_uint(out, gw_be16(at));
    gw_key(out, "ok");       gw_bool(out, at[2] == 0);
    return GW_WRITTEN;
}

static uint8_t sum(const uint8_t *bytes, uint32_t len) {
    uint8_t total = 0;
    while (len--) total = (uint8_t)(total + *bytes++);
    return total;
}

static int32_t decode(gw_out *out, const uint8_t *frame, uint32_t len, uint32_t aux) {
    if (len == 0 || len < 1u + frame[0]) return GW_NEEDS_MORE;
    if (len > 1u + frame[0] || len < HEAD + 1) return gw_error(GW_TRUNCATED, "no frame has this length");
    if (sum(frame, len - 1) != frame[len - 1]) return gw_error(GW_CHECKSUM, "the checksum differs");
    uint16_t sensor = gw_be16(frame + 2);
    const uint8_t *payload = frame + HEAD;
    uint32_t size = len - HEAD - 1;
    switch (frame[1]) {
    case IDLE: return GW_DROP;
    case READING: return size == 5 ? reading(out, sensor, payload) : GW_TRUNCATED;
    case MESSAGE: return message(out, sensor, payload, size);
    case TOTALS: return size == 16 ? totals(out, sensor, payload) : GW_TRUNCATED;
    case HISTORY: return size == 10 ? history(out, sensor, payload) : GW_TRUNCATED;
    case DONE: return size == 3 ? done(out, sensor, payload) : GW_TRUNCATED;
    case FIRMWARE: return gw_error(GW_UNSUPPORTED, "firmware is not read here");
    default: return gw_error(GW_UNKNOWN_TYPE, "no such frame");
    }
}
GW_DECODER(decode)

/* The number in a device's name; -1 where the name is none of ours. */
static int32_t sensor_number(gw_value name) {
    if (name.type != GW_T_STR || name.len <= prefix.len || name.len > prefix.len + 5) return -1;
    if (memcmp(name.text, prefix.text, prefix.len) != 0) return -1;
    int32_t number = 0;
    for (uint32_t i = prefix.len; i < name.len; i++) {
        if (name.text[i] < '0' || name.text[i] > '9') return -1;
        number = number * 10 + name.text[i] - '0';
    }
    return number <= UINT16_MAX ? number : -1;
}

/* Fill in the length and the checksum of the frame that was written. */
static int32_t sealed(gw_out *out) {
    gw_byte(out, 0);
    if (out->full) return GW_TOO_LARGE;
    out->start[0] = (uint8_t)(gw_written(out) - 1);
    out->at[-1] = sum(out->start, gw_written(out) - 1);
    return GW_WRITTEN;
}

static int32_t encode(gw_out *out, gw_in request, uint32_t aux) {
    gw_value command = gw_get(request, "command");
    gw_in args = {.at = request.end, .end = request.end};
    gw_find(request, "args", &args);
    if (gw_is(command, "ack")) {
        int64_t sensor = gw_get_int(args, "sensor", -1), type = gw_get_int(args, "type", -1);
        if (sensor < 0 || sensor > UINT16_MAX || type < 0 || type > UINT8_MAX)
            return gw_error(GW_BAD_CONFIG, "ack needs args.sensor and args.type");
        gw_byte(out, 0);
        gw_byte(out, ACK);
        gw_put16(out, (uint16_t)sensor);
        gw_byte(out, (uint8_t)type);
        return sealed(out);
    }
    if (gw_is(command, "set_interval")) {
        int64_t seconds = gw_get_int(args, "seconds", 0), serial = gw_get_int(request, "serial", -1);
        int32_t sensor = sensor_number(gw_get(request, "device"));
        if (sensor < 0) return gw_error(GW_BAD_CONFIG, "the device's name is no sensor's");
        if (serial < 0 || serial > UINT16_MAX) return gw_error(GW_BAD_CONFIG, "serial must be 0 to 65535");
        if (seconds < 1 || seconds > UINT16_MAX) return gw_error(GW_BAD_CONFIG, "args.seconds must be 1 to 65535");
        gw_byte(out, 0);
        gw_byte(out, SET_INTERVAL);
        gw_put16(out, (uint16_t)sensor);
        gw_put16(out, (uint16_t)serial);
        gw_put16(out, (uint16_t)seconds);
        return sealed(out);
    }
    return gw_error(GW_UNSUPPORTED, "commands are ack and set_interval");
}
GW_ENCODER(encode)
