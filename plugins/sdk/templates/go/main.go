// {{name}}: decodes the frames of an example sensor, and encodes what the sensor is told. README.md has the layout.
//
// Put your device in its place: keep the shape (check, look at the type, read, write an item), change the fields.
package main

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"gw1"
)

const (
	idle        = 0x00
	reading     = 0x01
	message     = 0x02
	totals      = 0x03
	history     = 0x04
	done        = 0x05
	firmware    = 0x06
	ack         = 0x81
	setInterval = 0x82
)

const (
	probeBroken = gw1.Own + iota
	notText
)

const (
	mostPrefix = 32
	mostPoints = 1000
)

// What the sensors' numbers are called by: `config.prefix`, "sensor-" where nobody says.
var prefix = "sensor-"

func init() {
	gw1.Register(gw1.Plugin{Init: start, Decode: decode, Encode: encode})
}

// Never runs: the gateway calls the exports.
func main() {}

func start(host gw1.Reader) error {
	config, _ := host.Find("config")
	switch wanted := config.Get("prefix"); {
	case wanted.Type == gw1.End:
		return nil
	case wanted.Type != gw1.Str || len(wanted.Bytes) > mostPrefix:
		return gw1.BadConfig.Because("config.prefix must be a text of at most 32 bytes")
	default:
		prefix = string(wanted.Bytes)
		return nil
	}
}

// item writes the head of every item: `kind` and `device`; the caller says how many more keys follow.
func item(out *gw1.Writer, kind string, sensor uint16, more int) {
	var name [mostPrefix + 5]byte
	device := strconv.AppendUint(append(name[:0], prefix...), uint64(sensor), 10)
	out.Map(2 + more)
	out.Key("kind").Str(kind)
	out.Key("device").Text(device)
}

func decodeReading(out *gw1.Writer, sensor uint16, at *gw1.Bytes) error {
	tenths, humidity, battery := at.BeI16(), at.U8(), at.BeU16()
	if at.Short || len(at.Rest) > 0 {
		return gw1.Truncated
	}
	if tenths == math.MinInt16 {
		return probeBroken.Because("the probe is broken")
	}
	item(out, "report", sensor, 2)
	out.Key("points").Array(1).Map(1)
	out.Key("values").Map(3)
	out.Key("temperature").F64(float64(tenths) / 10)
	out.Key("humidity").Uint(uint64(humidity))
	out.Key("battery_mv").Uint(uint64(battery))
	// Goes through `encode` once the reading is stored, and then to the sensor.
	out.Key("ack").Map(2)
	out.Key("command").Str("ack")
	out.Key("args").Map(2)
	out.Key("sensor").Uint(uint64(sensor))
	out.Key("type").Uint(reading)
	return nil
}

func decodeMessage(out *gw1.Writer, sensor uint16, text []byte) error {
	if !utf8.Valid(text) {
		return notText.Because("the message is not UTF-8")
	}
	item(out, "event", sensor, 1)
	out.Key("event").Map(2)
	out.Key("name").Str("message")
	out.Key("data").Map(1)
	out.Key("text").Text(text)
	return nil
}

func decodeTotals(out *gw1.Writer, sensor uint16, at *gw1.Bytes) error {
	pulses, energy := at.BeU64(), at.BeI64()
	if at.Short || len(at.Rest) > 0 {
		return gw1.Truncated
	}
	item(out, "report", sensor, 1)
	out.Key("points").Array(1).Map(1)
	out.Key("values").Map(2)
	out.Key("pulses").Uint(pulses)
	out.Key("energy_wh").Int(energy)
	return nil
}

func decodeHistory(out *gw1.Writer, sensor uint16, at *gw1.Bytes) error {
	second, step, count, tenths := uint64(at.BeU32()), uint64(at.BeU16()), at.BeU16(), at.BeI16()
	if at.Short || len(at.Rest) > 0 {
		return gw1.Truncated
	}
	if count > mostPoints { // ten bytes must not cost the gateway a megabyte
		return gw1.TooLarge.Because("more than 1000 points of history")
	}
	item(out, "report", sensor, 1)
	out.Key("points").Array(int(count))
	for range count {
		out.Map(2)
		out.Key("at").Uint(second * 1000)
		out.Key("values").Map(1)
		out.Key("temperature").F64(float64(tenths) / 10)
		second += step
	}
	return nil
}

func decodeDone(out *gw1.Writer, sensor uint16, at *gw1.Bytes) error {
	serial, result := at.BeU16(), at.U8()
	if at.Short || len(at.Rest) > 0 {
		return gw1.Truncated
	}
	item(out, "reply", sensor, 2)
	out.Key("reply_to").Uint(uint64(serial))
	out.Key("ok").Bool(result == 0)
	return nil
}

func sum(bytes []byte) (total byte) {
	for _, one := range bytes {
		total += one
	}
	return total
}

func decode(out *gw1.Writer, frame []byte, _ uint32) error {
	switch {
	case len(frame) == 0 || len(frame) < 1+int(frame[0]):
		return gw1.NeedsMore
	case len(frame) > 1+int(frame[0]) || len(frame) < 5:
		return gw1.Truncated.Because("no frame has this length")
	case sum(frame[:len(frame)-1]) != frame[len(frame)-1]:
		return gw1.Checksum.Because("the checksum differs")
	}
	at := gw1.Bytes{Rest: frame[1 : len(frame)-1]}
	kind, sensor := at.U8(), at.BeU16()
	switch kind {
	case idle:
		return gw1.Drop
	case reading:
		return decodeReading(out, sensor, &at)
	case message:
		return decodeMessage(out, sensor, at.Rest)
	case totals:
		return decodeTotals(out, sensor, &at)
	case history:
		return decodeHistory(out, sensor, &at)
	case done:
		return decodeDone(out, sensor, &at)
	case firmware:
		return gw1.Unsupported.Because("firmware is not read here")
	default:
		return gw1.UnknownType.Because("no such frame")
	}
}

// sensorNumber is the number in a device's name; false where the name is none of ours.
func sensorNumber(name gw1.Value) (uint16, bool) {
	digits, ours := strings.CutPrefix(string(name.Bytes), prefix)
	if name.Type != gw1.Str || !ours || strings.Trim(digits, "0123456789") != "" || len(digits) > 5 {
		return 0, false
	}
	number, err := strconv.ParseUint(digits, 10, 16)
	return uint16(number), err == nil
}

// within is an integer argument, and whether it lies in its field's range.
func within(value gw1.Value, least, most int64) (int64, bool) {
	number, whole := value.Number()
	return number, whole && least <= number && number <= most
}

func encode(out *gw1.Writer, request gw1.Reader, _ uint32) error {
	args, _ := request.Find("args")
	switch command := request.Get("command"); {
	case command.Is("ack"):
		sensor, named := within(args.Get("sensor"), 0, math.MaxUint16)
		kind, typed := within(args.Get("type"), 0, math.MaxUint8)
		if !named || !typed {
			return gw1.BadConfig.Because("ack needs args.sensor and args.type")
		}
		out.Raw(0, ack).BeU16(uint16(sensor)).Raw(byte(kind))
	case command.Is("set_interval"):
		sensor, named := sensorNumber(request.Get("device"))
		serial, numbered := within(request.Get("serial"), 0, math.MaxUint16)
		seconds, timed := within(args.Get("seconds"), 1, math.MaxUint16)
		switch {
		case !named:
			return gw1.BadConfig.Because("the device's name is no sensor's")
		case !numbered:
			return gw1.BadConfig.Because("serial must be 0 to 65535")
		case !timed:
			return gw1.BadConfig.Because("args.seconds must be 1 to 65535")
		}
		out.Raw(0, setInterval).BeU16(sensor).BeU16(uint16(serial)).BeU16(uint16(seconds))
	default:
		return gw1.Unsupported.Because("commands are ack and set_interval")
	}
	// The length and the checksum, now that the rest is known.
	frame := out.Written()
	frame[0] = byte(len(frame))
	out.Raw(sum(frame))
	return nil
}
