#ifndef GPUPROV_ERRORS_H
#define GPUPROV_ERRORS_H

/* The code of an error by its name in a profile; UNKNOWN (999) for a name that NVML does not have. */
int error_code(const char *name);

#endif
