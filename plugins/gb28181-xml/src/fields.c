/* SPDX-License-Identifier: Apache-2.0
 *
 * The elements that GB/T 28181-2016 and -2022 name in annex A.2, and how each is told.
 */
#include "gb28181.h"

static const field fields[] = {
    /* every body */
    {"CmdType", "cmd_type", AS_TEXT}, {"SN", "sn", AS_WHOLE}, {"DeviceID", "device_id", AS_TEXT},
    {"Result", "result", AS_TEXT}, {"Status", "status", AS_TEXT}, {"Reason", "reason", AS_TEXT},
    {"SumNum", "sum_num", AS_WHOLE}, {"Info", "info", AS_GROUP}, {"ExtraInfo", "extra_info", AS_GROUP},
    {"DeviceList", "device_list", AS_LIST}, {"RecordList", "record_list", AS_LIST},
    {"AlarmStatus", "alarm_status", AS_LIST}, {"PresetList", "preset_list", AS_LIST},
    /* Catalog */
    {"Name", "name", AS_TEXT}, {"Manufacturer", "manufacturer", AS_TEXT}, {"Model", "model", AS_TEXT},
    {"Owner", "owner", AS_TEXT}, {"CivilCode", "civil_code", AS_TEXT}, {"Block", "block", AS_TEXT},
    {"Address", "address", AS_TEXT}, {"Parental", "parental", AS_WHOLE}, {"ParentID", "parent_id", AS_TEXT},
    {"SafetyWay", "safety_way", AS_WHOLE}, {"RegisterWay", "register_way", AS_WHOLE},
    {"CertNum", "cert_num", AS_TEXT}, {"Certifiable", "certifiable", AS_WHOLE}, {"ErrCode", "err_code", AS_WHOLE},
    {"EndTime", "end_time", AS_TIME}, {"Secrecy", "secrecy", AS_WHOLE}, {"IPAddress", "ip_address", AS_TEXT},
    {"Port", "port", AS_WHOLE}, {"Password", "password", AS_TEXT}, {"Longitude", "longitude", AS_NUMBER},
    {"Latitude", "latitude", AS_NUMBER}, {"Event", "event", AS_TEXT},
    {"SecurityLevelCode", "security_level_code", AS_TEXT}, {"BusinessGroupID", "business_group_id", AS_TEXT},
    {"PTZType", "ptz_type", AS_WHOLE}, {"PositionType", "position_type", AS_WHOLE},
    {"CapturePositionType", "capture_position_type", AS_TEXT}, {"RoomType", "room_type", AS_WHOLE},
    {"UseType", "use_type", AS_WHOLE}, {"SupplyLightType", "supply_light_type", AS_WHOLE},
    {"PhotoelectricImagingType", "photoelectric_imaging_type", AS_TEXT},
    {"DirectionType", "direction_type", AS_WHOLE}, {"Resolution", "resolution", AS_TEXT},
    {"StreamNumberList", "stream_number_list", AS_TEXT}, {"DownloadSpeed", "download_speed", AS_TEXT},
    {"SVCSpaceSupportMode", "svc_space_support_mode", AS_WHOLE},
    {"SVCTimeSupportMode", "svc_time_support_mode", AS_WHOLE},
    {"SSVCRatioSupportList", "ssvc_ratio_support_list", AS_TEXT},
    {"MobileDeviceType", "mobile_device_type", AS_WHOLE},
    {"HorizontalFieldAngle", "horizontal_field_angle", AS_NUMBER},
    {"VerticalFieldAngle", "vertical_field_angle", AS_NUMBER}, {"MaxViewDistance", "max_view_distance", AS_NUMBER},
    {"GrassrootsCode", "grassroots_code", AS_TEXT}, {"PointType", "point_type", AS_WHOLE},
    {"PointCommonName", "point_common_name", AS_TEXT}, {"MAC", "mac", AS_TEXT},
    {"FunctionType", "function_type", AS_TEXT}, {"EncodeType", "encode_type", AS_TEXT},
    {"InstallTime", "install_time", AS_TIME}, {"ManagementUnit", "management_unit", AS_TEXT},
    {"ContactInfo", "contact_info", AS_TEXT}, {"RecordSaveDays", "record_save_days", AS_WHOLE},
    {"IndustrialClassification", "industrial_classification", AS_TEXT},
    /* DeviceInfo, DeviceStatus */
    {"DeviceName", "device_name", AS_TEXT}, {"DeviceType", "device_type", AS_TEXT},
    {"Firmware", "firmware", AS_TEXT}, {"Channel", "channel", AS_WHOLE}, {"MaxCamera", "max_camera", AS_WHOLE},
    {"MaxAlarm", "max_alarm", AS_WHOLE}, {"MaxOut", "max_out", AS_WHOLE}, {"Online", "online", AS_TEXT},
    {"Encode", "encode", AS_TEXT}, {"Record", "record", AS_TEXT}, {"DeviceTime", "device_time", AS_TIME},
    {"DutyStatus", "duty_status", AS_TEXT},
    /* Alarm */
    {"AlarmPriority", "alarm_priority", AS_WHOLE}, {"AlarmMethod", "alarm_method", AS_WHOLE},
    {"AlarmTime", "alarm_time", AS_TIME}, {"AlarmDescription", "alarm_description", AS_TEXT},
    {"AlarmInfo", "alarm_info", AS_TEXT}, {"AlarmType", "alarm_type", AS_WHOLE},
    {"AlarmTypeParam", "alarm_type_param", AS_GROUP}, {"EventType", "event_type", AS_WHOLE},
    {"StartAlarmPriority", "start_alarm_priority", AS_WHOLE}, {"EndAlarmPriority", "end_alarm_priority", AS_WHOLE},
    {"StartAlarmTime", "start_alarm_time", AS_TIME}, {"EndAlarmTime", "end_alarm_time", AS_TIME},
    /* MobilePosition */
    {"Time", "time", AS_TIME}, {"CaptureTime", "capture_time", AS_TIME}, {"Speed", "speed", AS_NUMBER},
    {"Direction", "direction", AS_NUMBER}, {"Altitude", "altitude", AS_NUMBER}, {"Height", "height", AS_NUMBER},
    {"Interval", "interval", AS_WHOLE},
    /* RecordInfo, MediaStatus */
    {"FilePath", "file_path", AS_TEXT}, {"StartTime", "start_time", AS_TIME}, {"Type", "type", AS_TEXT},
    {"RecorderID", "recorder_id", AS_TEXT}, {"FileSize", "file_size", AS_WHOLE},
    {"RecordLocation", "record_location", AS_TEXT}, {"StreamNumber", "stream_number", AS_WHOLE},
    {"IndistinctQuery", "indistinct_query", AS_TEXT}, {"NotifyType", "notify_type", AS_TEXT},
    /* presets, positions, configuration and control */
    {"PresetID", "preset_id", AS_TEXT}, {"PresetName", "preset_name", AS_TEXT}, {"Pan", "pan", AS_NUMBER},
    {"Tilt", "tilt", AS_NUMBER}, {"Zoom", "zoom", AS_NUMBER}, {"ConfigType", "config_type", AS_TEXT},
    {"BasicParam", "basic_param", AS_GROUP}, {"Expiration", "expiration", AS_WHOLE},
    {"HeartBeatInterval", "heart_beat_interval", AS_WHOLE}, {"HeartBeatCount", "heart_beat_count", AS_WHOLE},
    {"PositionCapability", "position_capability", AS_WHOLE}, {"PTZCmd", "ptz_cmd", AS_TEXT},
    {"TeleBoot", "tele_boot", AS_TEXT}, {"RecordCmd", "record_cmd", AS_TEXT}, {"GuardCmd", "guard_cmd", AS_TEXT},
    {"AlarmCmd", "alarm_cmd", AS_TEXT}, {"IFrameCmd", "iframe_cmd", AS_TEXT}, {"IFameCmd", "iframe_cmd", AS_TEXT},
    {"ControlPriority", "control_priority", AS_WHOLE}, {"HomePosition", "home_position", AS_GROUP},
    {"Enabled", "enabled", AS_WHOLE}, {"ResetTime", "reset_time", AS_WHOLE},
    {"PresetIndex", "preset_index", AS_WHOLE}, {"DragZoomIn", "drag_zoom_in", AS_GROUP},
    {"DragZoomOut", "drag_zoom_out", AS_GROUP}, {"Length", "length", AS_WHOLE}, {"Width", "width", AS_WHOLE},
    {"MidPointX", "mid_point_x", AS_WHOLE}, {"MidPointY", "mid_point_y", AS_WHOLE},
    {"LengthX", "length_x", AS_WHOLE}, {"LengthY", "length_y", AS_WHOLE},
};

static bool same_letters(const char *a, const char *b, uint32_t len) {
    for (uint32_t i = 0; i < len; i++) {
        char x = a[i], y = b[i];
        if (x != y && !((x ^ y) == 0x20 && (x | 0x20) >= 'a' && (x | 0x20) <= 'z')) return false;
    }
    return true;
}

const field *field_named(const char *name, uint32_t len) {
    for (uint32_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if ((*fields[i].name | 0x20) == (*name | 0x20) && strlen(fields[i].name) == len &&
            same_letters(fields[i].name, name, len))
            return &fields[i];
    return NULL;
}
