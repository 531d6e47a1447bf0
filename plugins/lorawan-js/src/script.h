/* SPDX-License-Identifier: Apache-2.0
 *
 * script.h - one JavaScript codec: its engine, its functions by the conventions of the networks, its errors as text.
 *
 * Owns the engine's life. Knows no frame and no msgpack.
 */
#ifndef LORAWAN_JS_SCRIPT_H
#define LORAWAN_JS_SCRIPT_H

#include "gw1.h"
#include "quickjs.h"

/* Levels of the host's log. */
enum { SCRIPT_DEBUG, SCRIPT_INFO, SCRIPT_WARNING, SCRIPT_ERROR };

/* How a codec's functions are called. */
typedef enum {
    STYLE_INPUT,     /* decodeUplink(input), encodeDownlink(input), decodeDownlink(input): one object in, one out */
    STYLE_FPORT,     /* Decode(fPort, bytes, variables), Encode(fPort, object, variables) */
    STYLE_PORT_LAST, /* Decoder(bytes, port), Converter(object, port), Validator(object, port); Encoder(object, port) */
} script_style;

typedef struct {
    JSContext *ctx;
    JSValue decoder, converter, validator, encoder; /* undefined where the script has none */
    script_style decoder_style, encoder_style;
} script;

#define SCRIPT_NO_DECODER                                                                                             \
    "has none of the functions decodeUplink, Decode and Decoder (decodeDownlink where `direction` is \"down\")"
#define SCRIPT_NO_ENCODER "has none of the functions encodeDownlink, Encode and Encoder"

/* Start an engine and run `source`, which must end in a zero byte beyond `len`; it is kept by reference. `downlink`
 * makes decodeDownlink the decoder. Returns 0, or a code with its text set. */
int32_t script_load(const char *source, size_t len, bool downlink);

/* The script, ready to be called: NULL, with the error text set, where none was loaded. */
script *script_ready(void);

/* End a call: let promises that it left behind go on, and run the script afresh where it ran out of memory. */
void script_finish(script *s);

/* Make the pending exception the error text, say it in the log, and return `code`. */
int32_t script_thrown(script *s, int32_t code);

/* Make "codec.js: <what>: <texts>" the error text, `texts` being a value or an array of them, and say it in the log. */
void script_said(script *s, int32_t level, const char *what, JSValueConst texts);

#endif
