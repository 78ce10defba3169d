package upstream

import "golang.org/x/sys/windows"

var unreachable = []error{windows.WSAECONNREFUSED, windows.WSAEHOSTUNREACH, windows.WSAENETUNREACH}
