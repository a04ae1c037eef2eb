/* The one place that compiles stb_ds. */
#define STB_DS_IMPLEMENTATION
#include <stb/stb_ds.h>
