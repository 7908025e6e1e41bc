// Tunes a network of one hidden layer, written by hand: width, rate and momentum. POSIX sockets, no library.
#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

static std::string host = "127.0.0.1", port = "8571", token;

// The body of the answer; the service is asked again while it does not answer.
std::string call(const std::string& method, const std::string& path, const std::string& body, const std::string& key = "") {
  for (int pause = 1; pause <= 32; pause *= 2) {
    addrinfo hints{}, *found = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) throw std::runtime_error("no such host");
    int line = socket(found->ai_family, found->ai_socktype, 0);
    bool joined = line >= 0 && connect(line, found->ai_addr, found->ai_addrlen) == 0;
    freeaddrinfo(found);
    std::string answer;
    if (joined) {
      std::string request = method + " " + path + " HTTP/1.1\r\nHost: " + host + ":" + port + "\r\nAuthorization: Bearer " + token +
                            "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
                            (key.empty() ? "" : "\r\nIdempotency-Key: " + key) + "\r\nConnection: close\r\n\r\n" + body;
      for (size_t sent = 0; sent < request.size();) {
        ssize_t now = write(line, request.data() + sent, request.size() - sent);
        if (now <= 0) break;
        sent += now;
      }
      char buffer[4096];
      for (ssize_t got; (got = read(line, buffer, sizeof buffer)) > 0;) answer.append(buffer, got);
    }
    if (line >= 0) close(line);
    size_t begin = answer.find("\r\n\r\n");
    int status = answer.size() > 12 ? std::atoi(answer.c_str() + 9) : 0;
    if (begin != std::string::npos && status >= 200 && status < 300) return answer.substr(begin + 4);
    if (status >= 400 && status != 429 && status != 503) throw std::runtime_error(answer.substr(begin + 4));
    sleep(pause);
  }
  throw std::runtime_error("the service does not answer");
}

// The text of a field of a flat answer; empty where there is none.
std::string field(const std::string& json, const std::string& name) {
  size_t at = json.find("\"" + name + "\":");
  if (at == std::string::npos) return "";
  at += name.size() + 3;
  if (json[at] == '"') return json.substr(at + 1, json.find('"', at + 1) - at - 1);
  return json.substr(at, json.find_first_of(",}", at) - at);
}

// The mean squared error on held-out rows after 40 epochs.
double train(int width, double rate, double momentum) {
  std::mt19937 generator(1);
  std::normal_distribution<double> normal;
  std::vector<double> in(width), bias(width), out(width), vin(width), vbias(width), vout(width), hidden(width);
  for (int i = 0; i < width; i++) in[i] = normal(generator), bias[i] = normal(generator), out[i] = normal(generator) / std::sqrt(width);
  auto predict = [&](double x) {
    double sum = 0;
    for (int i = 0; i < width; i++) sum += out[i] * (hidden[i] = std::tanh(in[i] * x + bias[i]));
    return sum;
  };
  for (int epoch = 0; epoch < 40; epoch++)
    for (int row = 0; row < 100; row++) {
      double x = std::sin(row * 1.3) * 3, error = predict(x) - std::sin(2 * x);
      for (int i = 0; i < width; i++) {
        double slope = error * out[i] * (1 - hidden[i] * hidden[i]);
        out[i] += vout[i] = momentum * vout[i] - rate * error * hidden[i];
        in[i] += vin[i] = momentum * vin[i] - rate * slope * x;
        bias[i] += vbias[i] = momentum * vbias[i] - rate * slope;
      }
    }
  double sum = 0;
  for (int row = 0; row < 60; row++) {
    double x = -3 + row * 0.1, error = predict(x) - std::sin(2 * x);
    sum += error * error / 60;
  }
  return sum;
}

int main() {
  std::string url = std::getenv("ADVISOR_URL") ? std::getenv("ADVISOR_URL") : "http://127.0.0.1:8571";
  token = std::getenv("ADVISOR_TOKEN") ? std::getenv("ADVISOR_TOKEN") : "";
  size_t from = url.find("//") + 2, colon = url.find(':', from);
  host = url.substr(from, colon - from), port = url.substr(colon + 1);
  std::string trials = std::getenv("TRIALS") ? std::getenv("TRIALS") : "12";
  std::string study = field(call("POST", "/v1/studies", R"({"name":"network","trials":)" + trials + R"(,"space":{
    "width":{"name":"IntDistribution","attributes":{"low":2,"high":64,"log":true,"step":1}},
    "rate":{"name":"FloatDistribution","attributes":{"low":1e-4,"high":0.3,"log":true,"step":null}},
    "momentum":{"name":"FloatDistribution","attributes":{"low":0,"high":0.95,"log":false,"step":null}}}})"), "id");
  for (int i = 1;; i++) {
    std::string trial = call("POST", "/v1/studies/" + study + "/trials", "{}", study + "-" + std::to_string(i));
    std::string number = field(trial, "number");
    if (number.empty()) break;
    double loss = train(std::atoi(field(trial, "width").c_str()), std::atof(field(trial, "rate").c_str()), std::atof(field(trial, "momentum").c_str()));
    std::string value = std::isfinite(loss) ? std::to_string(loss) : "1e6";
    call("POST", "/v1/studies/" + study + "/trials/" + number + "/complete", "{\"value\":" + value + "}");
  }
  std::string best = call("GET", "/v1/studies/" + study + "/best", "");
  std::printf("best of %s: %s with width %s, rate %s\n", trials.c_str(), field(best, "value").c_str(), field(best, "width").c_str(), field(best, "rate").c_str());
}
