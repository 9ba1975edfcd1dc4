from twisted.application.service import ServiceMaker

# twistd imports every plugin module whenever it lists its commands, so nothing else belongs here.
realtime = ServiceMaker("realtime", "txrealtime.service", "A Socket.IO server.", "realtime")
