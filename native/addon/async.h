// Waiting beside the event loop. Addon layer.
#pragma once
#include <napi.h>

#include <memory>

#include "../runtime/queue.h"

namespace chainrule {

// Calls `callback` with the last ticket that has finished, once `ticket` has or some milliseconds have passed.
void wait_beside(napi_env env, const std::shared_ptr<Queue>& queue, uint64_t ticket, napi_value callback);

}  // namespace chainrule
