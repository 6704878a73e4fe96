#include <algorithm>
#include <iterator>

#include "optiq/artifacts/metadata.h"
#include "optiq/base/error.h"

namespace optiq::artifacts {
namespace {

struct FormRow {
  SensitivityForm form;
  const char* name;
};

constexpr FormRow kForms[] = {
    {SensitivityForm::Exact, "exact"},
    {SensitivityForm::Fast, "fast"},
    {SensitivityForm::Auto, "auto"},
};

} // namespace

const char* name_of(SensitivityForm form) {
  return std::find_if(
             std::begin(kForms),
             std::end(kForms),
             [&](const FormRow& row) { return row.form == form; })
      ->name;
}

SensitivityForm sensitivity_form_of(const std::string& name) {
  for (const FormRow& row : kForms) {
    if (name == row.name) {
      return row.form;
    }
  }
  fail(
      ErrorKind::InvalidInput,
      "[convert] --sensitivity {}: expected auto, fast or exact.",
      name);
}

} // namespace optiq::artifacts
