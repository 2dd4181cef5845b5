#include "templates/chat_template.h"
