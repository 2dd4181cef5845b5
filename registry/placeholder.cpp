#include "registry/error.h"
