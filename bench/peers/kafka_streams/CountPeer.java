import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.zip.CRC32;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.QueryableStoreTypes;

/** Counts events per key by Kafka Streams' own count(), with RocksDB, cache and changelog. Prints one JSON line. */
public final class CountPeer {
    private static final long WARM = 300_000;
    private static final Map<String, String> given = new HashMap<>();

    private final CountDownLatch running = new CountDownLatch(1);
    private final CountDownLatch reached = new CountDownLatch(1);
    private final long total = Long.parseLong(given.get("events"));
    private final boolean transactions = given.get("guarantee").equals(StreamsConfig.EXACTLY_ONCE_V2);
    private long seen;
    private volatile long started;
    private volatile long warm;
    private volatile double cpuAtStart;

    public static void main(String[] args) throws Exception {
        for (String arg : args) {
            given.put(arg.substring(0, arg.indexOf('=')), arg.substring(arg.indexOf('=') + 1));
        }
        new CountPeer().run();
    }

    private void run() throws Exception {
        KafkaStreams streams = new KafkaStreams(topology(), config());
        streams.setStateListener((now, before) -> onState(now));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
        running.await();
        reached.await();
        // Under exactly_once_v2 the group's offsets are part of the transaction that holds the counts.
        // At least once commits every 30 s, so there the end is what close() has flushed.
        String counted = null;
        if (transactions) {
            awaitCommitted();
        } else {
            counted = counted(streams);
            streams.close();
        }
        long ended = System.nanoTime();
        double cpu = cpuSeconds() - cpuAtStart;
        if (transactions) {
            counted = counted(streams);
            streams.close();
        }
        System.out.printf(
                "{\"events\":%d,\"seconds\":%.4f,\"warm_events\":%d,\"seconds_warm\":%.4f,\"cpu_seconds\":%.3f,\"peak_rss_mb\":%.1f,%s}%n",
                seen, (ended - started) / 1e9, seen > WARM ? seen - WARM : seen, (ended - warm) / 1e9, cpu, peakMegabytes(), counted);
    }

    private void onState(KafkaStreams.State now) {
        if (now == KafkaStreams.State.RUNNING && started == 0) {
            cpuAtStart = cpuSeconds();
            started = System.nanoTime();
            warm = started;
            running.countDown();
        }
    }

    private static Properties config() {
        Properties config = new Properties();
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, given.get("id"));
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, given.get("bootstrap"));
        config.put(StreamsConfig.STATE_DIR_CONFIG, given.get("state"));
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, given.get("guarantee"));
        config.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        config.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, Long.parseLong(given.get("cache")));
        config.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        config.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        return config;
    }

    private Topology topology() throws Exception {
        AvroEvents events = new AvroEvents(Path.of(given.get("schemas")));
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(given.get("topic"), Consumed.with(Serdes.String(), events.serde()))
                .peek((key, event) -> onEvent())
                .groupByKey(Grouped.with(Serdes.String(), events.serde()))
                .count(Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts")
                        .withKeySerde(Serdes.String())
                        .withValueSerde(Serdes.Long()));
        return builder.build();
    }

    /** One stream thread calls this, so a plain counter will do. */
    private void onEvent() {
        seen++;
        if (seen == WARM) {
            warm = System.nanoTime();
        }
        if (seen == total) {
            reached.countDown();
        }
    }

    private void awaitCommitted() throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", given.get("bootstrap")))) {
            while (committed(admin) < total) {
                Thread.sleep(5);
            }
        }
    }

    /** With transactions in the group the committed offset may stand on a commit marker, never before the events. */
    private static long committed(Admin admin) throws Exception {
        long sum = 0;
        for (OffsetAndMetadata at : admin.listConsumerGroupOffsets(given.get("id"))
                .partitionsToOffsetAndMetadata().get().values()) {
            sum += at == null ? 0 : at.offset();
        }
        return sum;
    }

    private static String counted(KafkaStreams streams) {
        long sum = 0;
        long keys = 0;
        long digest = 0;
        var store = streams.store(
                StoreQueryParameters.fromNameAndType("counts", QueryableStoreTypes.<String, Long>keyValueStore()));
        try (KeyValueIterator<String, Long> rows = store.all()) {
            while (rows.hasNext()) {
                KeyValue<String, Long> row = rows.next();
                CRC32 crc = new CRC32();
                crc.update(row.key.getBytes(StandardCharsets.UTF_8));
                sum += row.value;
                keys++;
                digest += crc.getValue() * row.value;
            }
        }
        return String.format("\"counted\":%d,\"keys\":%d,\"digest\":%s", sum, keys, Long.toUnsignedString(digest));
    }

    private static double cpuSeconds() {
        var system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        return system.getProcessCpuTime() / 1e9;
    }

    private static double peakMegabytes() throws Exception {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) {
                return Long.parseLong(line.replaceAll("\\D", "")) / 1024.0;
            }
        }
        throw new IllegalStateException("/proc/self/status has no VmHWM");
    }
}
