#include "generate/engine_equality.h"

namespace optiq::generate::equality {
namespace {

const models::Setup& setup() {
  static const models::Setup tiny(testing::load_tiny_model(), Compute::Fast);
  return tiny;
}

TEST(EngineOnAHybrid, BatchesChangeNoBit) {
  expect_batches_change_no_bit(setup());
}

TEST(EngineOnAHybrid, PreemptionChangesNoBit) {
  expect_preemption_changes_no_bit(setup());
}

TEST(EngineOnAHybrid, ASecondTurnComputesOnlyWhatIsNewAndTheSameBits) {
  expect_second_turns_change_no_bit(setup(), 300);
}

TEST(EngineOnAHybrid, ABeginningThatTwoShareIsKeptForTheThird) {
  const Tokens text = testing::arithmetic_tokens(600);
  Engine engine(setup(), {});
  std::vector<AnswerPtr> answers;
  for (int i = 0; i < 3; ++i) {
    Request request = request_of(0, {});
    request.prompt.assign(text.begin(), text.begin() + 300);
    request.prompt.insert(
        request.prompt.end(),
        text.begin() + 300 + 30 * i,
        text.begin() + 330 + 30 * i);
    answers.push_back(submit(engine, request));
    finish(engine);
    expect_same(*answers.back(), *alone(setup(), request), i);
  }
  // States stand where the first one ended; the second one saw what it has in
  // common with it.
  EXPECT_EQ(answers[0]->cached, 0);
  EXPECT_EQ(answers[1]->cached, 0);
  EXPECT_EQ(answers[2]->cached, 256);
}

} // namespace
} // namespace optiq::generate::equality
