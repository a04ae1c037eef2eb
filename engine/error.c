#include "error.h"

#include <stdarg.h>
#include <stdio.h>

peridot_result fail(peridot_error *error, peridot_result code, const char *format, ...) {
    if (error) {
        error->code = code;
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
    }
    return code;
}
