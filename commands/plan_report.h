// A plan as text and JSON.
#pragma once

#include <string>
#include <vector>

#include "commands/remote_headers.h"
#include "engine/memory_plan.h"

namespace dsctl::commands {

/// A model with its plan.
struct PlannedModel {
  std::string name;
  engine::ModelFootprint model;
  engine::MemoryPlan plan;
  std::optional<engine::Remedy> smallest;  // cards that hold it, for the table
  std::vector<OtherVariant> others;        // of its repository, that would fit, the largest first
};

/// In full; lines of at most `width` columns where they are cut, 0: not cut.
std::string plan_text(const PlannedModel& planned, const engine::Machine& machine, int width);

/// One line a model: parameters, disk, GPU memory, the smallest cards, tokens/s there; without GPUs
/// RAM, and cores and bandwidth for a useful speed (cores_text).
std::string plan_table(const std::vector<PlannedModel>& models);

/// One object for each model; {"machine", "assumptions", "models": [...]} around them.
std::string plan_json(const std::vector<PlannedModel>& models, const engine::Machine& machine);

/// "a KV cache in fp8", "at most 15872 tokens of context", "16 x RTX 3090", "a quant of at most 3.7
/// bits a weight (Q3_K_S)".
std::string remedy_text(const engine::Remedy& remedy, const engine::Machine& machine);

/// "60 % of the bandwidth, 3 us a kernel, ...".
std::string assumptions_text();

/// What the table's cores are for and what is assumed of them.
std::string cores_text();

}  // namespace dsctl::commands
